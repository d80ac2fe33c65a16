//! Does random things on two mounts by turns, and in the model, and compares.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ozone_testkit::model::{Model, ModelResult};
use ozone_types::{Attr, ErrorCode, FileKind, InodeId, Timestamp};

use super::calls::{Got, errno};
use crate::harness::tree::Random;

/// Names in each directory: few, so that steps meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Directories lie at most so deep.
const DEPTH: usize = 3;
/// Modification times that are set begin here, in seconds; the model's own lie far below.
pub const SET_TIMES: i64 = 1_000_000_000;

/// Steps before one that went wrong that are told.
const TOLD: usize = 60;

/// The names on the way from the root to an inode.
pub type Names = Vec<&'static str>;

/// A file that stays open on one mount, maybe for longer than it has a name.
pub struct Open {
    pub file: File,
    pub inode: InodeId,
    pub write: bool,
}

pub struct Driver {
    roots: [PathBuf; 2],
    pub model: Model,
    pub random: Random,
    /// The numbers that the mounts show for the model's inodes.
    numbers: BTreeMap<InodeId, u64>,
    clock: i64,
    pub open: [Vec<Open>; 2],
    /// How often each operation ended with each errno; 0: it was done.
    seen: BTreeMap<(&'static str, i32), u64>,
    /// What is being done, for a message.
    pub doing: String,
    /// What was done before.
    history: Vec<String>,
}

impl Driver {
    pub fn new(roots: [&Path; 2], seed: u64) -> Self {
        let shown = fs::metadata(roots[0]).unwrap();
        let root = InodeId(1);
        let time = Timestamp::new(0, 0);
        Driver {
            roots: roots.map(Path::to_owned),
            model: Model::new(root, time, shown.mode(), shown.uid(), shown.gid()),
            random: Random::new(seed),
            numbers: BTreeMap::from([(root, shown.ino())]),
            clock: 0,
            open: [Vec::new(), Vec::new()],
            seen: BTreeMap::new(),
            doing: String::new(),
            history: Vec::new(),
        }
    }

    pub fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::new(self.clock, 0)
    }

    /// A number for the model's next inode.
    pub fn fresh(&self) -> InodeId {
        InodeId(self.numbers.len() as u64 + 1)
    }

    /// The model's inode has been made, and is shown with this number.
    pub fn made(&mut self, inode: InodeId, number: u64) {
        assert!(!self.numbers.values().any(|n| *n == number), "{}: number used twice", self.doing);
        self.numbers.insert(inode, number);
    }

    pub fn path(&self, mount: usize, names: &[&str]) -> PathBuf {
        names.iter().fold(self.roots[mount].clone(), |path, name| path.join(name))
    }

    /// A place: mostly a name in a directory that there is, sometimes anything.
    pub fn place(&mut self) -> Names {
        let mut names = Names::new();
        if self.random.below(5) > 0 {
            let dirs = self.directories();
            names = dirs[self.random.below(dirs.len() as u64) as usize].clone();
            names.truncate(DEPTH - 1);
        } else {
            for _ in 0..self.random.below(DEPTH as u64) {
                names.push(self.name());
            }
        }
        names.push(self.name());
        names
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.random.below(NAMES.len() as u64) as usize]
    }

    fn directories(&self) -> Vec<Names> {
        let mut all = vec![(Names::new(), self.model.root())];
        let mut at = 0;
        while let Some((names, inode)) = all.get(at).cloned() {
            for listed in self.model.readdir(inode).unwrap() {
                if listed.kind == FileKind::Directory {
                    let name = NAMES.iter().find(|n| n.as_bytes() == listed.name).unwrap();
                    all.push(([&names[..], &[*name]].concat(), listed.inode));
                }
            }
            at += 1;
        }
        all.into_iter().map(|(names, _)| names).collect()
    }

    /// What the names lead to, by the model; a symlink at the end is not followed, and one on the way
    /// leads nowhere.
    pub fn find(&self, names: &[&str]) -> ModelResult<Attr> {
        let mut attr = self.model.getattr(self.model.root())?;
        for name in names {
            attr = match attr.kind {
                FileKind::Directory => self.model.lookup(attr.inode, name.as_bytes())?,
                FileKind::Symlink => return Err(ErrorCode::NotFound),
                _ => return Err(ErrorCode::NotDir),
            };
        }
        Ok(attr)
    }

    /// The directory in which the last of the names is, and that name.
    pub fn within(&self, names: &[&'static str]) -> ModelResult<(InodeId, &'static [u8])> {
        let (name, way) = names.split_last().expect("a name");
        let dir = self.find(way)?;
        match dir.kind {
            FileKind::Directory => Ok((dir.inode, name.as_bytes())),
            FileKind::Symlink => Err(ErrorCode::NotFound),
            _ => Err(ErrorCode::NotDir),
        }
    }

    /// Both must say the same: the same value, or the same errno.
    #[track_caller]
    pub fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        operation: &'static str,
        got: Got<T>,
        expected: ModelResult<T>,
    ) -> bool {
        let expected = expected.map_err(ErrorCode::errno);
        if got != expected {
            let last = self.history.len().saturating_sub(TOLD);
            let before = self.history[last..].join("\n");
            panic!("{}: {got:?}, not {expected:?}, after\n{before}", self.doing);
        }
        self.history.push(format!("{}: {got:?}", self.doing));
        let outcome = got.as_ref().err().copied().unwrap_or(0);
        *self.seen.entry((operation, outcome)).or_default() += 1;
        got.is_ok()
    }

    /// What stat shows of an inode must be what the model says.
    #[track_caller]
    pub fn compare_attr(&self, shown: &fs::Metadata, attr: &Attr) {
        let doing = &self.doing;
        assert_eq!(shown.ino(), self.numbers[&attr.inode], "{doing}: inode");
        assert_eq!(FileKind::from_mode(shown.mode()), Some(attr.kind), "{doing}: kind");
        assert_eq!(shown.mode() & 0o7777, attr.mode, "{doing}: mode");
        assert_eq!(shown.nlink(), u64::from(attr.nlink), "{doing}: links");
        assert_eq!((shown.uid(), shown.gid()), (attr.uid, attr.gid), "{doing}: owner");
        assert_eq!(shown.len(), attr.size, "{doing}: size");
        if attr.mtime.secs >= SET_TIMES {
            let mtime = (shown.mtime(), shown.mtime_nsec() as u32);
            assert_eq!(mtime, (attr.mtime.secs, attr.mtime.nanos), "{doing}: mtime");
        }
    }

    /// One operation on one of the mounts, and a look at some place from the other one.
    pub fn step(&mut self) {
        let mount = self.random.below(2) as usize;
        self.act(mount);
        let names = self.place();
        self.look(1 - mount, &names);
    }

    pub fn look(&mut self, mount: usize, names: &[&'static str]) {
        self.doing = format!("{}, then stat {names:?} on {mount}", self.doing);
        let shown = fs::symlink_metadata(self.path(mount, names)).map_err(errno);
        let expected = self.find(names);
        let attr = expected.clone();
        let numbers = &self.numbers;
        let inode = expected.map(|attr| numbers[&attr.inode]);
        let got = shown.as_ref().map(MetadataExt::ino).map_err(|err| *err);
        if self.compare("stat", got, inode) {
            self.compare_attr(&shown.unwrap(), &attr.unwrap());
        }
    }

    /// Everything, on both mounts.
    pub fn walk(&mut self) {
        for mount in 0..2 {
            for dir in self.directories() {
                self.list(mount, &dir);
                let inode = self.find(&dir).unwrap().inode;
                for listed in self.model.readdir(inode).unwrap() {
                    let name = NAMES.iter().find(|n| n.as_bytes() == listed.name).unwrap();
                    let names = [&dir[..], &[*name]].concat();
                    self.doing = "walking".to_owned();
                    self.look(mount, &names);
                    if listed.kind == FileKind::Regular {
                        let bytes = fs::read(self.path(mount, &names)).map_err(errno);
                        let expected = self.model.read(listed.inode);
                        self.compare("read", bytes, expected);
                    }
                }
            }
            for open in &self.open[mount] {
                self.compare_attr(
                    &open.file.metadata().unwrap(),
                    &self.model.getattr(open.inode).unwrap(),
                );
                let expected = self.model.read(open.inode).unwrap();
                let mut bytes = vec![0; expected.len() + 1];
                let len = open.file.read_at(&mut bytes, 0).unwrap();
                assert!(bytes[..len] == expected, "bytes of an open file on {mount}");
            }
        }
    }

    pub fn list(&mut self, mount: usize, names: &[&'static str]) {
        self.doing = format!("list {names:?} on {mount}");
        let shown = fs::read_dir(self.path(mount, names)).map_err(errno).map(|entries| {
            use std::os::unix::fs::DirEntryExt;
            let entries = entries.map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_encoded_bytes(), entry.ino())
            });
            entries.collect::<BTreeMap<_, _>>()
        });
        let expected = self.find(names).and_then(|attr| match attr.kind {
            FileKind::Symlink => Err(ErrorCode::NotFound),
            _ => self.model.readdir(attr.inode),
        });
        let expected = expected.map(|listed| {
            let numbered = listed.into_iter().map(|l| (l.name, self.numbers[&l.inode]));
            numbered.collect::<BTreeMap<_, _>>()
        });
        self.compare("list", shown, expected);
    }

    pub fn summary(&self) -> String {
        let counts = self.seen.iter().map(|((operation, errno), n)| match errno {
            0 => format!("{operation} {n}"),
            _ => format!("{operation}/{errno} {n}"),
        });
        counts.collect::<Vec<_>>().join(", ")
    }

    /// A run that did little has shown little.
    pub fn assert_varied(&self) {
        for operation in super::steps::OPERATIONS {
            let done = self.seen.get(&(*operation, 0)).copied().unwrap_or(0);
            assert!(done > 0, "{operation} never succeeded: {}", self.summary());
        }
        for errno in
            [libc::ENOENT, libc::EEXIST, libc::ENOTDIR, libc::EISDIR, libc::ENOTEMPTY, libc::EINVAL]
        {
            assert!(self.seen.keys().any(|(_, e)| *e == errno), "errno {errno} was never seen");
        }
    }
}
