//! `apply` on a real store over a simulated disk.

mod accessed;
mod batches;
mod blocks;
mod buckets;
mod flags;
mod keys;
mod links;
mod model;
mod quotas;
mod ranges;
mod room;
mod roots;
mod soundness;
mod usage;
mod xattrs;

use std::cell::RefCell;
use std::path::Path;

use ozone_proto::common;
use ozone_proto::metad::entry::Op;
use ozone_proto::metad::{
    Attr, BucketInfo, CommitReply, CommitRequest, Create, CreateBucketRequest, CreateVolumeRequest,
    Entry, EntryReply, Refused, ResolveBucketRequest,
};
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command as Kind;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_raftkit::StateMachine;
use ozone_raftkit::store::{Read, Store, StoreOptions, View};
use ozone_testkit::simdisk::SimDisk;
use ozone_types::{
    BlockId, BucketId, ContainerId, ErrorCode, FsResult, InodeId, Replication, SessionId,
};
use prost::Message;

use super::MetadState;
use crate::check::check;
use crate::error::{OpError, OpResult};
use crate::tables;

const S_IFREG: u32 = 0o100000;

/// A store with a volume, a bucket, a session and inode numbers to use.
struct Bed {
    disk: SimDisk,
    store: Store,
    bucket: BucketId,
    root: InodeId,
    session: SessionId,
    /// The next inode number to use, and the next sequence of `session`.
    inode: u64,
    sequence: u64,
    clock: i64,
    /// The next local id of a block in container 1.
    local: u64,
    /// Every command and its reply.
    history: RefCell<Vec<(Vec<u8>, Vec<u8>)>>,
    /// How many of them the last checkpoint has.
    durable: usize,
}

fn bare_store() -> Store {
    open_store(&SimDisk::new())
}

fn open_store(disk: &SimDisk) -> Store {
    let options = StoreOptions { cache_bytes: 1 << 20, ..Default::default() };
    Store::open(disk.disk(), Path::new("/tables"), MetadState::TABLES, options).unwrap()
}

impl Bed {
    fn new() -> Bed {
        let disk = SimDisk::new();
        let mut bed = Bed {
            store: open_store(&disk),
            disk,
            bucket: BucketId(0),
            root: InodeId(0),
            session: SessionId(0),
            inode: 0,
            sequence: 1,
            clock: 0,
            local: 0,
            history: RefCell::default(),
            durable: 0,
        };
        let volume = CreateVolumeRequest { name: "vol1".into(), ..Default::default() };
        bed.run(Kind::CreateVolume(volume));
        let bucket = bed.create_bucket("bucket1").unwrap();
        bed.bucket = BucketId(bucket.id);
        bed.root = InodeId(bucket.root);
        bed.session = bed.open_session();
        let reserve = log::ReserveInodes { session: bed.session.0, count: 1 << 20 };
        match bed.run(Kind::ReserveInodes(reserve)) {
            Reply::ReserveInodes(reply) => bed.inode = reply.first,
            other => panic!("{other:?}"),
        }
        bed
    }

    fn create_bucket(&self, name: &str) -> Result<BucketInfo, ErrorCode> {
        let request = CreateBucketRequest {
            volume: "vol1".into(),
            name: name.into(),
            mode: 0o755,
            replication: Some(Replication::THREE.into()),
            ..Default::default()
        };
        match self.run(Kind::CreateBucket(request)) {
            Reply::Bucket(info) => Ok(info),
            Reply::Failed(failed) => Err(ErrorCode::from_wire(failed.code).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn open_session(&self) -> SessionId {
        match self.run(Kind::SessionOpen(log::SessionOpen::default())) {
            Reply::Session(id) => SessionId(id),
            other => panic!("{other:?}"),
        }
    }

    fn time(&self) -> common::Timestamp {
        common::Timestamp { secs: self.clock, nanos: 5 }
    }

    fn run_raw(&self, command: Kind) -> Vec<u8> {
        let command = log::Command { time: Some(self.time()), command: Some(command) };
        let bytes = command.encode_to_vec();
        let reply = self.store.update(|txn| MetadState.apply(txn, &bytes)).unwrap();
        self.history.borrow_mut().push((bytes, reply.clone()));
        reply
    }

    fn checkpoint(&mut self) {
        self.store.checkpoint_now().unwrap();
        self.durable = self.history.borrow().len();
    }

    /// Loses power: the commands since the last checkpoint come again, and make the same of it.
    fn crash(&mut self, seed: u64) {
        let before = self.dump();
        self.disk.crash(seed);
        drop(std::mem::replace(&mut self.store, bare_store()));
        self.store = open_store(&self.disk);
        for (command, reply) in &self.history.borrow()[self.durable..] {
            let again = self.store.update(|txn| MetadState.apply(txn, command)).unwrap();
            assert!(again == *reply, "another reply to {:?}", log::Command::decode(&command[..]));
        }
        assert!(self.dump() == before, "the same commands made other rows");
    }

    /// The same commands give the same replies and the same rows elsewhere, whenever checkpoints
    /// were made.
    fn assert_deterministic(&self) {
        let other = bare_store();
        for (command, reply) in self.history.borrow().iter() {
            let again = other.update(|txn| MetadState.apply(txn, command)).unwrap();
            assert!(again == *reply, "another reply to {:?}", log::Command::decode(&command[..]));
        }
        assert!(rows(&other.view()) == self.dump(), "the same commands made other rows");
    }

    fn run(&self, command: Kind) -> Reply {
        log::CommandReply::decode(&self.run_raw(command)[..]).unwrap().reply.unwrap()
    }

    /// The code that a command is refused with.
    fn refused(&self, command: Kind) -> ErrorCode {
        match self.run(command) {
            Reply::Failed(failed) => ErrorCode::from_wire(failed.code).unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn next_inode(&mut self) -> u64 {
        self.inode += 1;
        self.inode - 1
    }

    /// A batch under the session's next sequence.
    fn batch(&mut self, ops: Vec<Op>) -> CommitRequest {
        self.clock += 1;
        let time = Some(self.time());
        let entries: Vec<Entry> = ops.into_iter().map(|op| Entry { time, op: Some(op) }).collect();
        let first_sequence = self.sequence;
        self.sequence += entries.len() as u64;
        CommitRequest {
            session: self.session.0,
            first_sequence,
            acked_sequence: 0,
            bucket: self.bucket.0,
            entries,
        }
    }

    fn commit(&mut self, ops: Vec<Op>) -> Result<Vec<Option<Attr>>, Refused> {
        let replies = self.commit_replies(ops)?;
        Ok(replies.into_iter().map(|entry| entry.attr).collect())
    }

    fn commit_replies(&mut self, ops: Vec<Op>) -> Result<Vec<EntryReply>, Refused> {
        let batch = self.batch(ops);
        match self.run(Kind::Commit(batch)) {
            Reply::Commit(CommitReply { refused: Some(refused), entries, .. }) => {
                assert!(entries.is_empty());
                Err(refused)
            }
            Reply::Commit(CommitReply { entries, .. }) => Ok(entries),
            other => panic!("{other:?}"),
        }
    }

    fn commit_one(&mut self, op: Op) -> Result<Attr, ErrorCode> {
        match self.commit(vec![op]) {
            Ok(attrs) => Ok(attrs.into_iter().next().unwrap().unwrap_or_default()),
            Err(refused) => Err(ErrorCode::from_wire(refused.code).unwrap()),
        }
    }

    fn create_op(&mut self, name: &str) -> Op {
        Op::Create(Create {
            parent: self.root.0,
            name: name.into(),
            inode: self.next_inode(),
            mode: S_IFREG | 0o644,
            ..Default::default()
        })
    }

    fn create(&mut self, name: &str) -> InodeId {
        let op = self.create_op(name);
        InodeId(self.commit_one(op).unwrap().inode)
    }

    /// A new open block of the session in container 1.
    fn allocate(&mut self) -> BlockId {
        self.local += 1;
        let block = BlockId::new(ContainerId(1), self.local);
        let allocate = log::AllocateBlocks {
            session: self.session.0,
            blocks: vec![block.into()],
            replication: Some(Replication::THREE.into()),
            containers: vec![log::ContainerRecord { container: 1, ..Default::default() }],
        };
        assert!(matches!(self.run(Kind::AllocateBlocks(allocate)), Reply::Done(_)));
        block
    }

    fn view(&self) -> View<'_> {
        self.store.view()
    }

    fn assert_sound(&self) {
        assert_eq!(check(&self.view()).unwrap(), []);
    }

    /// Every row of every table.
    fn dump(&self) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        rows(&self.view())
    }
}

/// What a mount asks for.
fn mount(volume: &str, bucket: &str, subdirectory: &str) -> ResolveBucketRequest {
    let [volume, bucket, subdirectory] = [volume, bucket, subdirectory].map(str::to_owned);
    ResolveBucketRequest { volume, bucket, subdirectory, keys: false }
}

/// What an operation on sound tables answers.
fn answer<T>(result: OpResult<T>) -> FsResult<T> {
    match result {
        Ok(value) => Ok(value),
        Err(OpError::Refused(err)) => Err(err),
        Err(OpError::Fatal(err)) => panic!("{err}"),
    }
}

fn code<T: std::fmt::Debug>(result: OpResult<T>) -> ErrorCode {
    answer(result).unwrap_err().code()
}

fn rows(view: &View<'_>) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for &(table, _) in tables::ALL {
        for row in view.prefix(table, &[]) {
            let (key, value) = row.unwrap();
            rows.push((table, key, value));
        }
    }
    rows
}

/// An extent of a Write entry.
fn extent(offset: u64, length: u64, block: BlockId, block_offset: u64) -> common::Extent {
    common::Extent { offset, length, block: Some(block.into()), block_offset }
}
