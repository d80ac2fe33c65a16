//! What each entry does.

use ozone_proto::common;
use ozone_proto::metad::{self as wire, Entry, EntryReply, entry::Op};
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{BlockId, ErrorCode, FsResult};

use super::{Inner, Node, refuse};

/// Fewer than a real one, so that clients come again.
const CLONE_EXTENTS: usize = 2;

impl Inner {
    pub(super) fn execute(&mut self, session: u64, entry: &Entry) -> FsResult<EntryReply> {
        let mut length = 0;
        let inode = match entry.op.clone().unwrap() {
            Op::Create(create) => self.create(create, entry)?,
            Op::Link(l) => {
                self.names.insert((l.parent, l.name), l.inode);
                l.inode
            }
            Op::Unlink(u) => {
                let gone = self.names.remove(&(u.parent, u.name));
                return gone.map(|_| EntryReply::default()).ok_or(ErrorCode::NotFound.into());
            }
            Op::Rename(r) => {
                let inode = self.names.remove(&(r.parent, r.name)).ok_or(ErrorCode::NotFound)?;
                self.names.insert((r.new_parent, r.new_name), inode);
                return Ok(EntryReply::default());
            }
            Op::Setattr(s) => {
                let node = self.node_mut(s.inode)?;
                if let Some(size) = s.size {
                    cut(node, size, u64::MAX);
                    node.attr.size = size;
                }
                node.attr.mode = s.mode.unwrap_or(node.attr.mode);
                node.attr.mtime = s.mtime.or(node.attr.mtime);
                node.attr.atime = s.atime.or(node.attr.atime);
                node.attr.ctime = s.ctime.or(entry.time);
                s.inode
            }
            Op::Write(w) => {
                length = self.write(&w)?;
                w.inode
            }
            Op::SetXattr(set) => self.set_xattr(set)?,
            Op::RemoveXattr(remove) => {
                let node = self.node_mut(remove.inode)?;
                node.xattrs.remove(&remove.name).ok_or(ErrorCode::NoData)?;
                remove.inode
            }
            Op::Punch(punch) => self.punch(&punch, entry)?,
            Op::Clone(clone) => {
                length = self.clone_range(&clone, entry)?;
                clone.to
            }
            Op::Accessed(read) => return Ok(self.accessed(&read)),
            Op::Reserve(reserve) => return self.reserve(session, &reserve),
            Op::ReleaseBlock(release) => return self.release_block(session, &release),
            other => panic!("the fake does not know {other:?}"),
        };
        let node = self.nodes.get_mut(&inode).unwrap();
        node.attr.version += 1;
        node.attr.xattrs = !node.xattrs.is_empty();
        Ok(EntryReply { attr: Some(node.attr), length, ..EntryReply::default() })
    }

    fn node_mut(&mut self, inode: u64) -> FsResult<&mut Node> {
        self.nodes.get_mut(&inode).ok_or(ErrorCode::NotFound.into())
    }

    fn create(&mut self, c: wire::Create, entry: &Entry) -> FsResult<u64> {
        if self.names.contains_key(&(c.parent, c.name.clone())) {
            return refuse(ErrorCode::Exists);
        }
        let attr = wire::Attr {
            inode: c.inode,
            kind: 8,
            mode: c.mode & 0o7777 & !c.umask,
            uid: c.uid,
            gid: c.gid,
            nlink: 1,
            atime: entry.time,
            mtime: entry.time,
            ctime: entry.time,
            ..wire::Attr::default()
        };
        self.nodes.insert(c.inode, Node { attr, ..Node::default() });
        self.names.insert((c.parent, c.name), c.inode);
        Ok(c.inode)
    }

    fn set_xattr(&mut self, set: wire::SetXattr) -> FsResult<u64> {
        let node = self.node_mut(set.inode)?;
        match node.xattrs.contains_key(&set.name) {
            true if set.create => return refuse(ErrorCode::Exists),
            false if set.replace => return refuse(ErrorCode::NoData),
            _ => {}
        }
        node.xattrs.insert(set.name, set.value);
        Ok(set.inode)
    }

    fn punch(&mut self, p: &wire::Punch, entry: &Entry) -> FsResult<u64> {
        if p.size.max(p.offset + p.length) > FILE_SIZE_MAX {
            return refuse(ErrorCode::TooBig);
        }
        let node = self.node_mut(p.inode)?;
        cut(node, p.offset, p.offset + p.length);
        node.attr.size = node.attr.size.max(p.size);
        node.attr.mtime = entry.time;
        kill(node, p.kill_suid_sgid);
        Ok(p.inode)
    }

    /// Answers the bytes done.
    fn clone_range(&mut self, c: &wire::Clone, entry: &Entry) -> FsResult<u64> {
        let from = self.node_mut(c.from)?;
        let end = from.attr.size.min(c.from_offset.saturating_add(c.length));
        let mut length = end.saturating_sub(c.from_offset);
        if c.to_offset + length > FILE_SIZE_MAX {
            return refuse(ErrorCode::TooBig);
        }
        if c.from == c.to && c.from_offset.abs_diff(c.to_offset) < length {
            return refuse(ErrorCode::Invalid);
        }
        let mut runs = Vec::new();
        for (at, (len, block, block_offset)) in &from.extents {
            let (first, last) = ((*at).max(c.from_offset), (at + len).min(end));
            if first < last {
                runs.push((first - c.from_offset, last - first, *block, block_offset + first - at));
            }
        }
        if runs.len() > CLONE_EXTENTS {
            runs.truncate(CLONE_EXTENTS);
            length = runs.last().map_or(0, |(at, len, ..)| at + len);
        }
        let to = self.node_mut(c.to)?;
        if length > 0 {
            cut(to, c.to_offset, c.to_offset + length);
            let placed = |(at, len, block, offset)| (c.to_offset + at, (len, block, offset));
            to.extents.extend(runs.into_iter().map(placed));
            to.attr.size = to.attr.size.max(c.to_offset + length);
            to.attr.mtime = entry.time;
            kill(to, c.kill_suid_sgid);
        }
        Ok(length)
    }

    fn release_block(&mut self, session: u64, r: &wire::ReleaseBlock) -> FsResult<EntryReply> {
        let id: BlockId = r.block.unwrap().into();
        let block = self.blocks.get_mut(&id).ok_or(ErrorCode::BlockNotFound)?;
        assert!(block.writer == session, "released twice or by a stranger");
        assert!(r.length >= block.length, "bytes that are committed are released away");
        block.length = r.length;
        (block.sealed, block.writer) = (true, 0);
        Ok(EntryReply::default())
    }

    fn accessed(&mut self, read: &wire::Accessed) -> EntryReply {
        let Some(node) = self.nodes.get_mut(&read.inode) else { return EntryReply::default() };
        let time = |at: Option<common::Timestamp>| at.map(|at| (at.secs, at.nanos));
        let attr = &mut node.attr;
        if time(read.atime) < time(attr.ctime).max(time(attr.atime)) {
            return EntryReply::default();
        }
        attr.atime = read.atime;
        EntryReply { attr: Some(*attr), ..EntryReply::default() }
    }

    /// Answers where the bytes of an append begin.
    fn write(&mut self, w: &wire::Write) -> FsResult<u64> {
        for e in &w.extents {
            let block = self.blocks.get_mut(&e.block_id()?).ok_or(ErrorCode::BlockNotFound)?;
            let end = e.block_offset + e.length;
            if block.sealed && end > block.length {
                return refuse(ErrorCode::BlockSealed);
            }
            block.length = block.length.max(end);
        }
        let node = self.nodes.get_mut(&w.inode).ok_or(ErrorCode::NotFound)?;
        let base = if w.append { node.attr.size } else { 0 };
        for e in &w.extents {
            let at = base + e.offset;
            cut(node, at, at + e.length);
            node.extents.insert(at, (e.length, e.block_id()?, e.block_offset));
        }
        node.attr.size = node.attr.size.max(base + w.size);
        node.attr.mtime = w.mtime;
        node.attr.ctime = w.mtime;
        kill(node, w.kill_suid_sgid);
        Ok(base)
    }
}

fn kill(node: &mut Node, kill: bool) {
    if kill {
        node.attr.mode &= 0o0777;
        node.xattrs.remove(&b"security.capability"[..]);
    }
}

fn cut(node: &mut Node, from: u64, to: u64) {
    let touched: Vec<_> = node
        .extents
        .iter()
        .filter(|(at, (len, ..))| **at < to && **at + *len > from)
        .map(|(at, e)| (*at, *e))
        .collect();
    for (at, (len, block, offset)) in touched {
        node.extents.remove(&at);
        if at < from {
            node.extents.insert(at, (from - at, block, offset));
        }
        if at + len > to {
            node.extents.insert(to, (at + len - to, block, offset + (to - at)));
        }
    }
}
