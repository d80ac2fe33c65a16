//! Random work, compared step by step with the model of `testkit`: value, error and the attributes
//! of every inode, and after every batch the tables are checked against each other.

mod compare;
mod data;
mod quota;
mod work;
mod xattrs;

use std::collections::BTreeMap;

use ozone_proto::metad::{Link, Mkdir, ReleaseBlock, Rename, Rmdir, Setattr, Symlink, Unlink};
use ozone_testkit::model::{Model, ModelResult, NewNode, RenameMode, SetAttr};
use ozone_types::{Attr as TypedAttr, FileKind, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::error::{OpError, OpResult};
use crate::ops;
use compare::{assert_same, assert_version, compare_content, compare_xattrs};
use quota::Quotas;
use work::{Action, NAMES, Pick, Step, action, name};

/// The real tables and the model side by side.
struct Pair {
    bed: Bed,
    model: Model,
    /// Every inode that ever was.
    known: Vec<InodeId>,
    /// The bytes of each block, and the one that is written.
    blocks: BTreeMap<BlockId, Vec<u8>>,
    block: BlockId,
    fill: u8,
    before: BTreeMap<u64, Attr>,
    quotas: Quotas,
    /// Another session, that only reserves.
    other: Option<SessionId>,
    /// What happened how often: steps by their name and outcome.
    seen: BTreeMap<(&'static str, &'static str), u32>,
}

impl Pair {
    fn new() -> Pair {
        let mut bed = Bed::new();
        let block = bed.allocate();
        let model = Model::new(bed.root, Timestamp::new(0, 5), 0o755, 0, 0);
        let known = vec![bed.root];
        let blocks = BTreeMap::from([(block, Vec::new())]);
        Pair {
            bed,
            model,
            known,
            blocks,
            block,
            fill: 0,
            before: BTreeMap::new(),
            quotas: Quotas::default(),
            other: None,
            seen: BTreeMap::new(),
        }
    }

    fn pick(&self, pick: Pick) -> InodeId {
        match pick {
            Pick::Any(n) => self.known[n as usize % self.known.len()],
            Pick::Dir(n) => self.nth(n, |a| a.kind == FileKind::Directory && a.nlink > 0),
            Pick::File(n) => self.nth(n, |a| a.kind == FileKind::Regular),
        }
    }

    fn nth(&self, n: u8, wanted: impl Fn(&TypedAttr) -> bool) -> InodeId {
        let found: Vec<InodeId> =
            self.model.inodes().filter(|a| wanted(a)).map(|a| a.inode).collect();
        if found.is_empty() { self.bed.root } else { found[n as usize % found.len()] }
    }

    /// A directory and a name in it, which may be there or not.
    fn place(&self, (dir, n): (Pick, u8)) -> (InodeId, &'static [u8]) {
        (self.pick(dir), name(n))
    }

    /// A directory and a name that is mostly there.
    fn taken(&self, (dir, n): (Pick, u8)) -> (InodeId, &'static [u8]) {
        let dir = self.pick(dir);
        let there = self.model.readdir(dir).unwrap_or_default();
        let known = (n < 180 && !there.is_empty())
            .then(|| &there[n as usize % there.len()])
            .and_then(|entry| NAMES.into_iter().find(|&known| known == entry.name));
        (dir, known.unwrap_or(name(n)))
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Batch { steps, repeat } => self.batch(steps, *repeat),
            Action::Purge { max_rows } => self.purge(*max_rows),
            Action::Checkpoint => self.bed.checkpoint(),
            Action::Crash { seed } => self.bed.crash(*seed),
            Action::Quotas { bytes, names } => self.set_quotas(*bytes, *names),
            Action::Reserve { other, bytes, least, release } => {
                self.reserve(*other, *bytes, *least, *release);
            }
            Action::EndOther => self.end_other(),
            Action::NewBlock => {
                let length = self.blocks[&self.block].len() as u64;
                let block = Some(self.block.into());
                self.bed.commit_one(Op::ReleaseBlock(ReleaseBlock { block, length })).unwrap();
                self.block = self.bed.allocate();
                self.blocks.insert(self.block, Vec::new());
            }
        }
        self.compare();
    }

    fn batch(&mut self, steps: &[Step], repeat: bool) {
        let (model_before, quotas_before) = (self.model.clone(), self.quotas.clone());
        self.bed.clock += 1;
        let now = Timestamp::new(self.bed.clock, 5);
        let (mut ops, mut results) = (Vec::new(), Vec::new());
        for step in steps {
            let used = self.used();
            let (op, mut result) = self.step(now, step);
            if result.is_ok() {
                let credit = if let Op::Write(write) = &op { write.credit } else { 0 };
                let now = self.used();
                let charged = self.quotas.charge(self.bed.session, used, now, credit);
                result = charged.and(result);
            }
            ops.push(op);
            let failed = result.is_err();
            let outcome = result.as_ref().err().map_or("ok", |code| code.text());
            *self.seen.entry((step.name(), outcome)).or_default() += 1;
            results.push(result);
            if failed {
                break;
            }
        }
        self.bed.clock -= 1; // batch() moves it
        let batch = self.bed.batch(ops);
        let bytes = self.bed.run_raw(Kind::Commit(batch.clone()));
        if repeat {
            let rows = self.bed.dump();
            assert_eq!(self.bed.run_raw(Kind::Commit(batch)), bytes);
            assert_eq!(self.bed.dump(), rows);
        }
        let Some(Reply::Commit(reply)) = log::CommandReply::decode(&bytes[..]).unwrap().reply
        else {
            panic!("no reply to a batch")
        };
        if let Some(Err(code)) = results.last() {
            let refused = reply.refused.expect("the model refuses, the tables do not");
            let answered = ErrorCode::from_wire(refused.code);
            assert_eq!((refused.entry as usize, answered), (results.len() - 1, Some(*code)));
            (self.model, self.quotas) = (model_before, quotas_before);
            return;
        }
        assert_eq!(reply.refused, None, "the tables refuse, the model does not");
        for (entry, result) in reply.entries.into_iter().zip(results) {
            let attr = entry.attr.unwrap();
            let (expected, length) = result.unwrap();
            assert_same(&attr, &expected);
            assert_eq!(entry.length, length);
            if !self.known.contains(&InodeId(attr.inode)) {
                self.known.push(InodeId(attr.inode));
            }
        }
    }

    fn new_node(&mut self, mode: u32, umask: u32, uid: u32, gid: u32) -> NewNode {
        let inode = InodeId(self.bed.next_inode());
        NewNode { inode, mode, umask, uid, gid, rdev: 0x0103 }
    }

    /// One change, done in the model and worded for the tables: the attributes after it, and the
    /// bytes that a clone has done, or where an append begins.
    fn step(&mut self, now: Timestamp, step: &Step) -> (Op, ModelResult<(TypedAttr, u64)>) {
        let (op, result) = match *step {
            Step::Write { inode, ref runs, hole, kill, scatter, append, credit } => {
                let flags = [kill, scatter, append];
                return self.write(now, self.pick(inode), runs, hole, flags, credit);
            }
            Step::Clone { from, to, from_offset, to_offset, length, kill } => {
                return self.clone_range(now, (from, from_offset), (to, to_offset), length, kill);
            }
            Step::Punch { inode, offset, length, size, kill } => {
                self.punch(now, inode, (offset, length), size, kill)
            }
            Step::SetXattr { inode, name, ref value, flags } => {
                self.setxattr(now, inode, name, value, flags)
            }
            Step::RemoveXattr { inode, name } => self.removexattr(now, inode, name),
            Step::Setattr { inode, size, mode, owner, times } => {
                self.setattr(now, self.pick(inode), size, mode, owner, times)
            }
            _ => self.name_step(now, step),
        };
        (op, result.map(|attr| (attr, 0)))
    }

    /// A change of names.
    fn name_step(&mut self, now: Timestamp, step: &Step) -> (Op, ModelResult<TypedAttr>) {
        match *step {
            Step::Create { at, mode, umask, uid, gid } => {
                let (parent, name) = self.place(at);
                let new = self.new_node(mode, umask, uid, gid);
                let op = Op::Create(Create {
                    parent: parent.0,
                    name: name.into(),
                    inode: new.inode.0,
                    mode,
                    uid,
                    gid,
                    rdev: new.rdev,
                    open: false,
                    umask,
                });
                let result = self.model.create(now, parent, name, new);
                self.note_inherited("create", parent, &result);
                (op, result)
            }
            Step::Mkdir { at, mode, umask, gid } => {
                let (parent, name) = self.place(at);
                let new = self.new_node(mode, umask, 1, gid);
                let (inode, name_bytes) = (new.inode.0, name.into());
                let op =
                    Mkdir { parent: parent.0, name: name_bytes, inode, mode, umask, uid: 1, gid };
                let result = self.model.mkdir(now, parent, name, new);
                self.note_inherited("mkdir", parent, &result);
                (Op::Mkdir(op), result)
            }
            Step::Symlink { at, length } => {
                let (parent, name) = self.place(at);
                let new = self.new_node(0o777, 0, 1, 2);
                let target = vec![b't'; length];
                let result = self.model.symlink(now, parent, name, &target, new);
                let (parent, name, inode) = (parent.0, name.into(), new.inode.0);
                (Op::Symlink(Symlink { parent, name, inode, target, uid: 1, gid: 2 }), result)
            }
            Step::Link { inode, at } => {
                let inode = self.pick(inode);
                let (parent, name) = self.place(at);
                let op = Link { inode: inode.0, parent: parent.0, name: name.into() };
                (Op::Link(op), self.model.link(now, inode, parent, name))
            }
            Step::Unlink { at } => {
                let (parent, name) = self.taken(at);
                let op = Unlink { parent: parent.0, name: name.into() };
                (Op::Unlink(op), self.model.unlink(now, parent, name))
            }
            Step::Rmdir { at } => {
                let (parent, name) = self.taken(at);
                let op = Rmdir { parent: parent.0, name: name.into() };
                (Op::Rmdir(op), self.model.rmdir(now, parent, name))
            }
            Step::Rename { from, to, mode } => self.rename(now, from, to, mode),
            _ => unreachable!("not a change of names: {step:?}"),
        }
    }

    fn rename(
        &mut self,
        now: Timestamp,
        from: (Pick, u8),
        to: (Pick, u8),
        mode: u8,
    ) -> (Op, ModelResult<TypedAttr>) {
        let from = self.taken(from);
        let to = if mode.is_multiple_of(2) { self.place(to) } else { self.taken(to) };
        let mode = match mode {
            0 => RenameMode::NoReplace,
            1 | 2 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        let op = Op::Rename(Rename {
            parent: from.0.0,
            name: from.1.into(),
            new_parent: to.0.0,
            new_name: to.1.into(),
            no_replace: mode == RenameMode::NoReplace,
            exchange: mode == RenameMode::Exchange,
        });
        (op, self.model.rename(now, from, to, mode))
    }

    fn setattr(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        size: Option<u64>,
        mode: Option<u32>,
        owner: Option<u32>,
        times: u8,
    ) -> (Op, ModelResult<TypedAttr>) {
        let at = |bit: u8| (times & bit != 0).then(|| Timestamp::new(-i64::from(times), 7));
        let set = SetAttr {
            mode,
            uid: owner,
            gid: owner.filter(|&id| id != 1),
            size,
            atime: at(1),
            mtime: at(2),
            ctime: at(4),
            kill_suid_sgid: times & 8 != 0,
        };
        let op = Op::Setattr(Setattr {
            inode: inode.0,
            mode,
            uid: set.uid,
            gid: set.gid,
            size,
            atime: set.atime.map(Into::into),
            mtime: set.mtime.map(Into::into),
            ctime: set.ctime.map(Into::into),
            kill_suid_sgid: set.kill_suid_sgid,
            ..Default::default()
        });
        let with_acl = mode.is_some() && self.model.getxattr(inode, work::ACCESS).is_ok();
        let result = self.model.setattr(now, inode, &set);
        if with_acl && result.is_ok() {
            *self.seen.entry(("setattr", "of an ACL")).or_default() += 1;
        }
        (op, result)
    }

    fn purge(&mut self, max_rows: u32) {
        let keys = ops::orphans(&self.bed.view(), None, 3).unwrap();
        let key = |k: &tables::InodeKey| log::OrphanKey { bucket: k.bucket.0, inode: k.inode.0 };
        let orphans: Vec<log::OrphanKey> = keys.iter().map(key).collect();
        loop {
            let op = log::PurgeOrphans { orphans: orphans.clone(), max_rows };
            let Reply::Purge(progress) = self.bed.run(Kind::PurgeOrphans(op)) else {
                panic!("not a purge's reply")
            };
            self.bed.assert_sound();
            if !progress.more {
                break;
            }
        }
        for key in keys {
            assert!(self.model.purge(key.inode), "an orphan that the model does not know");
        }
    }

    fn compare(&mut self) {
        self.bed.assert_sound();
        let view = self.bed.view();
        let bucket = self.bed.bucket;
        let mut now = BTreeMap::new();
        for &inode in &self.known {
            let real = ops::getattr(&view, bucket, inode);
            match self.model.getattr(inode) {
                Ok(expected) => {
                    let attr = real.unwrap();
                    assert_same(&attr, &expected);
                    assert_version(self.before.get(&inode.0), &attr);
                    now.insert(inode.0, attr);
                }
                Err(code) => assert_eq!(refusal(real), Some(code)),
            }
            compare_content(&view, bucket, inode, &self.model, &self.blocks);
            compare_xattrs(&view, bucket, inode, &self.model);
        }
        let usage = tables::BUCKET_USAGE.need(&view, &bucket).unwrap();
        assert_eq!(usage.inodes, self.model.inodes().count() as u64);
        drop(view);
        self.compare_usage();
        self.before = now;
    }
}

fn refusal<T>(result: OpResult<T>) -> Option<ErrorCode> {
    match result {
        Ok(_) => None,
        Err(OpError::Refused(err)) => Some(err.code()),
        Err(OpError::Fatal(err)) => panic!("{err}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4096, ..Default::default() })]

    #[test]
    fn the_tables_do_what_the_model_does(actions in prop::collection::vec(action(), 1..80)) {
        let mut pair = Pair::new();
        for action in &actions {
            pair.act(action);
        }
        pair.bed.assert_deterministic();
    }
}

/// The random work reaches what it is there for: each of these outcomes is seen in a fixed run.
#[test]
fn the_random_work_is_worth_its_time() {
    let mut runner = TestRunner::deterministic();
    let work = prop::collection::vec(action(), 120);
    let mut seen = BTreeMap::new();
    for _ in 0..80 {
        let mut pair = Pair::new();
        for action in work.new_tree(&mut runner).unwrap().current() {
            pair.act(&action);
        }
        for (outcome, count) in pair.seen {
            *seen.entry(outcome).or_insert(0) += count;
        }
    }
    for (name, outcomes) in [
        ("create", &["ok", "ALREADY_EXISTS", "NOT_A_DIRECTORY", "OPERATION_NOT_PERMITTED"][..]),
        ("mkdir", &["ok", "ALREADY_EXISTS", "STALE_INODE", "NAME_TOO_LONG"]),
        ("symlink", &["ok", "NAME_TOO_LONG", "NOT_FOUND"]),
        ("link", &["ok", "NOT_FOUND", "OPERATION_NOT_PERMITTED"]),
        ("unlink", &["ok", "NOT_FOUND", "IS_A_DIRECTORY"]),
        ("rmdir", &["ok", "DIRECTORY_NOT_EMPTY", "NOT_A_DIRECTORY"]),
        ("rename", &["ok", "DIRECTORY_NOT_EMPTY", "IS_A_DIRECTORY", "NOT_A_DIRECTORY"]),
        ("rename", &["INVALID_REQUEST", "NOT_FOUND"]),
        ("rename exchange", &["ok", "INVALID_REQUEST", "NOT_FOUND"]),
        ("rename noreplace", &["ok", "ALREADY_EXISTS"]),
        ("setattr", &["ok", "NOT_SUPPORTED_OPERATION"]),
        ("truncate", &["ok", "IS_A_DIRECTORY", "FILE_TOO_BIG"]),
        ("write", &["ok", "IS_A_DIRECTORY", "INVALID_REQUEST"]),
        ("append", &["ok", "IS_A_DIRECTORY", "FILE_TOO_BIG"]),
        ("create", &["QUOTA_EXCEEDED"]),
        ("link", &["QUOTA_EXCEEDED"]),
        ("write", &["QUOTA_EXCEEDED", "QUOTA_RESERVED"]),
        ("append", &["QUOTA_EXCEEDED", "QUOTA_RESERVED"]),
        ("reserve", &["ok", "QUOTA_EXCEEDED", "QUOTA_RESERVED"]),
        ("create", &["an ACL inherited"]),
        ("mkdir", &["an ACL inherited"]),
        ("setattr", &["of an ACL"]),
        ("setxattr", &["ok", "ALREADY_EXISTS", "NO_SUCH_ATTRIBUTE", "NOT_SUPPORTED_OPERATION"]),
        ("setxattr", &["INVALID_REQUEST", "RANGE"]),
        ("set an ACL", &["ok", "ALREADY_EXISTS", "NO_SUCH_ATTRIBUTE", "NOT_SUPPORTED_OPERATION"]),
        ("set an ACL", &["INVALID_REQUEST", "PERMISSION_DENIED"]),
        ("removexattr", &["ok", "NO_SUCH_ATTRIBUTE", "INVALID_REQUEST"]),
        ("removexattr", &["NOT_SUPPORTED_OPERATION", "STALE_INODE"]),
        ("punch", &["ok", "IS_A_DIRECTORY", "INVALID_REQUEST", "FILE_TOO_BIG", "STALE_INODE"]),
        ("clone", &["ok", "IS_A_DIRECTORY", "INVALID_REQUEST", "FILE_TOO_BIG", "STALE_INODE"]),
        ("clone", &["of one file", "shortened", "none"]),
    ] {
        for outcome in outcomes {
            assert!(seen.contains_key(&(name, *outcome)), "never: {name}, {outcome}");
        }
    }
}
