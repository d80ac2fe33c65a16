//! Random operations of one or two clients on shared files against plain ones, while servers fail.

mod plain;

use ozone_types::ErrorCode;
use proptest::prelude::*;

use super::blockds::Fault;
use super::*;
use crate::api::{Allocate, Seek, SetAttr, SetXattr, XattrMode};
use plain::{CAPABILITY, Plain};

const FILES: usize = 2;
const XATTRS: [&[u8]; 3] = [b"user.a", b"user.b", CAPABILITY];

#[derive(Clone, Debug)]
enum Op {
    File { client: usize, file: usize, what: FileOp },
    Pause { millis: u64 },
    Blockd { at: usize, fault: Fault },
    LoseCommits { requests: u32, replies: u32 },
    BreakStreams,
    FailOver,
    SealAll,
}

#[derive(Clone, Debug)]
enum FileOp {
    Write {
        offset: u64,
        len: usize,
        seed: u64,
        kill: bool,
    },
    Append {
        len: usize,
    },
    Truncate {
        size: u64,
    },
    Allocate {
        offset: u64,
        len: usize,
        how: Allocate,
    },
    /// To the file of this number.
    Copy {
        offset: u64,
        to: usize,
        to_offset: u64,
        len: usize,
    },
    Read {
        offset: u64,
        len: usize,
    },
    Seek {
        offset: u64,
        what: Seek,
    },
    Size,
    Fsync,
    Reopen {
        write: bool,
    },
    Close,
    SetXattr {
        name: &'static [u8],
        len: usize,
        mode: XattrMode,
    },
    RemoveXattr {
        name: &'static [u8],
    },
    Getxattr {
        name: &'static [u8],
    },
    Listxattr,
}

fn file_op() -> impl Strategy<Value = FileOp> {
    let offset = || prop_oneof![0..200_000u64, 0..3_000_000u64];
    let len = || prop_oneof![3 => 1..10_000usize, 1 => 1..400_000usize];
    let name = || prop::sample::select(XATTRS.to_vec());
    let how = prop::sample::select(vec![
        Allocate::Extend,
        Allocate::Reserve,
        Allocate::Punch,
        Allocate::Punch,
        Allocate::Zero { keep_size: true },
        Allocate::Zero { keep_size: false },
    ]);
    let mode = prop::sample::select(vec![XattrMode::Any, XattrMode::Create, XattrMode::Replace]);
    let seek = prop::sample::select(vec![Seek::Data, Seek::Hole]);
    prop_oneof![
        12 => (offset(), len(), any::<u64>(), prop::bool::weighted(0.2))
            .prop_map(|(offset, len, seed, kill)| FileOp::Write { offset, len, seed, kill }),
        3 => len().prop_map(|len| FileOp::Append { len }),
        4 => offset().prop_map(|size| FileOp::Truncate { size }),
        6 => (offset(), len(), how)
            .prop_map(|(offset, len, how)| FileOp::Allocate { offset, len, how }),
        5 => (offset(), 0..FILES, offset(), len())
            .prop_map(|(offset, to, to_offset, len)| FileOp::Copy { offset, to, to_offset, len }),
        12 => (offset(), len()).prop_map(|(offset, len)| FileOp::Read { offset, len }),
        6 => (offset(), seek).prop_map(|(offset, what)| FileOp::Seek { offset, what }),
        3 => Just(FileOp::Size),
        4 => Just(FileOp::Fsync),
        4 => any::<bool>().prop_map(|write| FileOp::Reopen { write }),
        3 => Just(FileOp::Close),
        4 => (name(), 0..300usize, mode)
            .prop_map(|(name, len, mode)| FileOp::SetXattr { name, len, mode }),
        2 => name().prop_map(|name| FileOp::RemoveXattr { name }),
        4 => name().prop_map(|name| FileOp::Getxattr { name }),
        2 => Just(FileOp::Listxattr),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let fault = prop_oneof![
        2 => Just(Fault::None),
        1 => Just(Fault::Dead),
        1 => Just(Fault::Silent),
        1 => Just(Fault::Failing),
        1 => Just(Fault::Corrupt),
        1 => Just(Fault::Detects),
    ];
    prop_oneof![
        60 => (0..2usize, 0..FILES, file_op())
            .prop_map(|(client, file, what)| Op::File { client, file, what }),
        2 => (1..1500u64).prop_map(|millis| Op::Pause { millis }),
        3 => (0..3usize, fault).prop_map(|(at, fault)| Op::Blockd { at, fault }),
        2 => (0..3u32, 0..3u32)
            .prop_map(|(requests, replies)| Op::LoseCommits { requests, replies }),
        1 => Just(Op::BreakStreams),
        1 => Just(Op::FailOver),
        1 => Just(Op::SealAll),
    ]
}

struct World {
    cluster: Cluster,
    clients: Vec<Arc<Client>>,
    inodes: Vec<InodeId>,
    /// By client and file.
    handles: Vec<Vec<Option<Arc<OpenFile>>>>,
    model: Vec<Plain>,
}

impl World {
    async fn new(clients: usize) -> World {
        let cluster = Cluster::new();
        let count = clients;
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(cluster.client_with(|c| c.memory = 8 << 20).await);
        }
        let mut inodes = Vec::new();
        for n in 0..FILES {
            inodes.push(create(&clients[0], &format!("f{n}")).await.inode());
        }
        let handles = vec![vec![None; FILES]; count];
        World { cluster, clients, inodes, handles, model: vec![Plain::default(); FILES] }
    }

    async fn handle(&mut self, client: usize, file: usize, write: bool) -> Arc<OpenFile> {
        match &self.handles[client][file] {
            Some(open) if open.mode.write || !write => open.clone(),
            _ => {
                let opened = open(&self.clients[client], self.inodes[file], write).await;
                self.handles[client][file] = Some(opened.clone());
                opened
            }
        }
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::File { client, file, what } => {
                let client = client % self.clients.len();
                match what {
                    FileOp::SetXattr { .. }
                    | FileOp::RemoveXattr { .. }
                    | FileOp::Getxattr { .. }
                    | FileOp::Listxattr => self.xattr_step(client, *file, what).await,
                    FileOp::Allocate { .. } | FileOp::Copy { .. } | FileOp::Seek { .. } => {
                        self.range_step(client, *file, what).await;
                    }
                    _ => self.data_step(client, *file, what).await,
                }
            }
            Op::Pause { millis } => tokio::time::sleep(Duration::from_millis(*millis)).await,
            Op::Blockd { at, fault } => {
                // One at a time: more than that is not survived by design.
                (0..3).for_each(|other| self.cluster.blockds.set_fault(other, Fault::None));
                self.cluster.blockds.set_fault(*at, *fault);
            }
            Op::LoseCommits { requests, replies } => self.cluster.metad.lose(*requests, *replies),
            Op::BreakStreams => self.cluster.metad.break_streams(),
            Op::FailOver => self.cluster.metad.fail_over(),
            Op::SealAll => self.cluster.metad.seal_before_next_commit(),
        }
    }

    async fn data_step(&mut self, at: usize, file: usize, what: &FileOp) {
        let client = self.clients[at].clone();
        match *what {
            FileOp::Write { offset, len, seed, kill } => {
                let open = self.handle(at, file, true).await;
                let data = pattern(len, seed);
                let written = client.write(&open, offset, data.clone().into(), kill).await;
                assert_eq!(written.unwrap(), len);
                self.model[file].write(offset as usize, &data);
                if kill {
                    self.model[file].kill();
                }
            }
            FileOp::Append { len } => {
                let open = self.handle(at, file, true).await;
                let data = pattern(len, 77);
                let end = self.model[file].len();
                let place = client.append(&open, data.clone().into(), false).await;
                assert_eq!(place.unwrap(), end as u64);
                self.model[file].write(end, &data);
            }
            FileOp::Truncate { size } => {
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                let attr = client.setattr(self.inodes[file], set).await.unwrap();
                assert_eq!(attr.size, size);
                self.model[file].resize(size as usize);
            }
            FileOp::Read { offset, len } => {
                let open = self.handle(at, file, false).await;
                let got = read(&client, &open, offset, len).await;
                let expected = self.model[file].part(offset as usize, len);
                assert_eq!(got.len(), expected.len());
                assert!(got == expected.bytes, "wrong bytes at {offset}+{len} of {file}");
            }
            FileOp::Size => {
                let attr = client.getattr(self.inodes[file]).await.unwrap();
                assert_eq!(attr.size, self.model[file].len() as u64);
            }
            FileOp::Fsync => {
                let open = self.handle(at, file, true).await;
                client.fsync(&open).await.unwrap();
            }
            FileOp::Reopen { write } => {
                self.handles[at][file] = None;
                self.handle(at, file, write).await;
            }
            FileOp::Close => self.handles[at][file] = None,
            ref other => unreachable!("{other:?}"),
        }
    }

    async fn range_step(&mut self, at: usize, file: usize, what: &FileOp) {
        let client = self.clients[at].clone();
        match *what {
            FileOp::Allocate { offset, len, how } => {
                let open = self.handle(at, file, true).await;
                let range = offset..offset + len as u64;
                client.fallocate(&open, range, how, false).await.unwrap();
                let (model, offset) = (&mut self.model[file], offset as usize);
                match how {
                    Allocate::Reserve => {}
                    Allocate::Extend => model.extend(offset + len),
                    Allocate::Punch | Allocate::Zero { keep_size: true } => {
                        model.punch(offset..offset + len);
                    }
                    Allocate::Zero { keep_size: false } => {
                        model.extend(offset + len);
                        model.punch(offset..offset + len);
                    }
                }
            }
            FileOp::Copy { offset, to, to_offset, len } => {
                let target = self.handle(at, to, true).await;
                let source = self.handle(at, file, false).await;
                let copied =
                    client.copy_range(&source, offset, &target, to_offset, len as u64, true).await;
                let part = self.model[file].part(offset as usize, len);
                if file == to && offset.abs_diff(to_offset) < part.len() as u64 {
                    assert_eq!(copied.unwrap_err().code(), ErrorCode::Invalid);
                } else {
                    assert_eq!(copied.unwrap(), part.len() as u64);
                    self.model[to].put(to_offset as usize, &part);
                }
            }
            FileOp::Seek { offset, what } => {
                let open = self.handle(at, file, false).await;
                let found = client.seek(&open, offset, what).await.map_err(|err| err.code());
                let expected = self.model[file].seek(offset as usize, what);
                assert_eq!(found, expected, "{what:?} from {offset} in {file}");
            }
            ref other => unreachable!("{other:?}"),
        }
    }

    async fn xattr_step(&mut self, at: usize, file: usize, what: &FileOp) {
        let (client, inode) = (self.clients[at].clone(), self.inodes[file]);
        let model = &mut self.model[file];
        match *what {
            FileOp::SetXattr { name, len, mode } => {
                let value = pattern(len, len as u64);
                let set = SetXattr {
                    name: Bytes::from_static(name),
                    value: value.clone().into(),
                    mode,
                    kill_sgid: false,
                };
                let done = client.setxattr(inode, set).await.map_err(|err| err.code());
                assert_eq!(done, model.set_xattr(name, &value, mode));
            }
            FileOp::RemoveXattr { name } => {
                let done = client.removexattr(inode, name).await.map_err(|err| err.code());
                assert_eq!(done, model.xattrs.remove(name).map(drop).ok_or(ErrorCode::NoData));
            }
            FileOp::Getxattr { name } => {
                let got = client.getxattr(inode, name).await.map_err(|err| err.code());
                let expected = model.xattrs.get(name).cloned().ok_or(ErrorCode::NoData);
                assert_eq!(got.map(Vec::from), expected);
            }
            FileOp::Listxattr => {
                let mut names = client.listxattr(inode).await.unwrap();
                names.sort();
                assert!(names.iter().eq(model.xattrs.keys()), "{names:?}");
            }
            ref other => unreachable!("{other:?}"),
        }
    }

    /// After everything is closed a third client sees the same bytes.
    async fn finish(mut self) {
        self.handles.clear();
        for client in &self.clients {
            client.shutdown().await.unwrap();
        }
        assert_eq!((self.cluster.metad.sessions(), self.cluster.metad.open_blocks()), (0, 0));
        let fresh = self.cluster.client().await;
        for (inode, model) in self.inodes.iter().zip(&self.model) {
            let file = open(&fresh, *inode, false).await;
            let got = read(&fresh, &file, 0, model.len() + 1).await;
            assert!(got == model.bytes, "wrong bytes after all is closed");
        }
    }
}

fn run(clients: usize, ops: &[Op]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(clients).await;
        for op in ops {
            let stuck = tokio::time::timeout(Duration::from_secs(120), world.step(op)).await;
            assert!(stuck.is_ok(), "{op:?} is stuck");
        }
        let stuck = tokio::time::timeout(Duration::from_secs(120), world.finish()).await;
        assert!(stuck.is_ok(), "shutdown is stuck");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn two_clients_agree_with_the_model(ops in prop::collection::vec(op(), 1..80)) {
        run(2, &ops);
    }

    /// It answers from its own memory what two would ask for.
    #[test]
    fn one_client_agrees_with_the_model(ops in prop::collection::vec(op(), 1..80)) {
        run(1, &ops);
    }
}
