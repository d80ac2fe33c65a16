//! rename, with NOREPLACE and EXCHANGE.
//!
//! Rows: reads both parents, both names, the inodes they lead to, and, when a directory changes its
//! parent, the directories above the new place; writes what of these has changed.
//! Errors in Linux's order: parents, old name, new name, EEXIST (NOREPLACE), ENOENT (EXCHANGE), then
//! ancestry (EINVAL, ENOTEMPTY), then nothing at all if both names lead to one inode, then EPERM
//! (chattr), then kinds (ENOTDIR, EISDIR), then ENOTEMPTY.

use std::io;

use ozone_proto::metad::{self, Attr};
use ozone_raftkit::store::Read;
use ozone_types::{ErrorCode, FileName, InodeId};

use super::names::Target;
use super::node::Node;
use super::{Change, names};
use crate::error::{OpResult, refuse};
use crate::tables::{INODES, InodeKey};

/// The directories of the two names, which may be one.
struct Parents {
    old: Node,
    new: Option<Node>,
}

impl Parents {
    fn load(cx: &Change<'_, '_>, op: &metad::Rename) -> OpResult<Parents> {
        let load = |inode| Node::directory(cx.txn, InodeKey::new(cx.bucket, InodeId(inode)));
        let old = load(op.parent)?;
        let new = if op.new_parent == op.parent { None } else { Some(load(op.new_parent)?) };
        Ok(Parents { old, new })
    }

    fn target(&self) -> &Node {
        self.new.as_ref().unwrap_or(&self.old)
    }

    fn target_mut(&mut self) -> &mut Node {
        self.new.as_mut().unwrap_or(&mut self.old)
    }

    fn differ(&self) -> bool {
        self.new.is_some()
    }

    /// Whether `node` may lose its name here and get one there, in the place of what `taken` has.
    fn may_move(&self, node: &Node, taken: Option<&Node>) -> OpResult<()> {
        self.old.may_change()?;
        node.may_change()?;
        match taken {
            Some(taken) => self.target().may_change().and_then(|()| taken.may_change()),
            None => self.target().may_grow(),
        }
    }

    fn put(&self, cx: &mut Change<'_, '_>) {
        self.old.put(cx);
        if let Some(new) = &self.new {
            new.put(cx);
        }
    }
}

/// Answers the attributes of the inode that has got the new name.
pub fn rename(cx: &mut Change<'_, '_>, op: &metad::Rename) -> OpResult<Attr> {
    if op.no_replace && op.exchange {
        return refuse(ErrorCode::Invalid, "NOREPLACE and EXCHANGE exclude each other");
    }
    let mut parents = Parents::load(cx, op)?;
    let old_name = FileName::new(&op.name)?;
    let source = names::find(cx.txn, &parents.old, &old_name)?.ok_or(ErrorCode::NotFound)?;
    let new_name = FileName::new(&op.new_name)?;
    let target = names::find(cx.txn, parents.target(), &new_name)?;
    if op.no_replace && target.is_some() {
        return Err(ErrorCode::Exists.into());
    }
    if op.exchange && target.is_none() {
        return Err(ErrorCode::NotFound.into());
    }
    if parents.differ() {
        check_ancestry(cx.txn, &parents, &source, target.as_ref(), op.exchange)?;
    }
    let mut node = Node::named(cx.txn, InodeKey::new(cx.bucket, source.inode))?;
    match target {
        Some(target) if target.inode == source.inode => return Ok(node.attr()),
        Some(target) if op.exchange => {
            let mut other = Node::named(cx.txn, InodeKey::new(cx.bucket, target.inode))?;
            parents.may_move(&node, Some(&other))?;
            names::redirect(cx, &mut parents.old, &old_name, &source, &other)?;
            names::redirect(cx, parents.target_mut(), &new_name, &target, &node)?;
            if other.is_dir() {
                other.row.parent = parents.old.key.inode.0;
            }
            other.changed(cx.time);
            other.put(cx);
        }
        Some(target) => {
            let mut victim = replaceable(cx, &parents, &node, &target)?;
            names::remove(cx, &mut parents.old, &old_name, &source)?;
            names::redirect(cx, parents.target_mut(), &new_name, &target, &node)?;
            victim.unlinked(cx)?;
            victim.put(cx);
        }
        None => {
            parents.may_move(&node, None)?;
            names::remove(cx, &mut parents.old, &old_name, &source)?;
            names::add(cx, parents.target_mut(), &new_name, &node)?;
        }
    }
    if node.is_dir() {
        node.row.parent = parents.target().key.inode.0;
    }
    node.changed(cx.time);
    node.put(cx);
    parents.put(cx);
    Ok(node.attr())
}

/// The inode that loses its name to `node`.
fn replaceable(
    cx: &Change<'_, '_>,
    parents: &Parents,
    node: &Node,
    target: &Target,
) -> OpResult<Node> {
    let victim = Node::named(cx.txn, InodeKey::new(cx.bucket, target.inode))?;
    parents.may_move(node, Some(&victim))?;
    match (node.is_dir(), victim.is_dir()) {
        (true, false) => return Err(ErrorCode::NotDir.into()),
        (false, true) => return Err(ErrorCode::IsDir.into()),
        (true, true) | (false, false) => {}
    }
    if victim.is_dir() && victim.row.entries != 0 {
        return Err(ErrorCode::NotEmpty.into());
    }
    Ok(victim)
}

/// No directory may come to hang below itself.
fn check_ancestry(
    tables: &impl Read,
    parents: &Parents,
    source: &Target,
    target: Option<&Target>,
    exchange: bool,
) -> OpResult<()> {
    if source.is_dir() && is_within(tables, parents.target(), source.inode)? {
        return refuse(ErrorCode::Invalid, "a directory cannot be moved below itself");
    }
    let Some(target) = target.filter(|t| t.is_dir()) else { return Ok(()) };
    // When a directory is to replace its own ancestor, the ancestor is not empty, and that is found
    // without a walk.
    if (exchange || !source.is_dir()) && is_within(tables, &parents.old, target.inode)? {
        return Err(if exchange { ErrorCode::Invalid } else { ErrorCode::NotEmpty }.into());
    }
    Ok(())
}

/// Whether `dir` is `ancestor` or below it.
fn is_within(tables: &impl Read, dir: &Node, ancestor: InodeId) -> io::Result<bool> {
    let (mut at, mut parent) = (dir.key.inode, InodeId(dir.row.parent));
    while at != ancestor {
        if at == parent {
            return Ok(false); // the root
        }
        at = parent;
        let row = INODES.need(tables, &InodeKey::new(dir.key.bucket, at))?;
        parent = InodeId(row.parent);
    }
    Ok(true)
}
