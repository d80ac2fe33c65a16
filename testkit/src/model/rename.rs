//! rename(2) and renameat2(2), in the order of Linux's `do_renameat2` and `vfs_rename`.

use ozone_types::{Attr, ErrorCode, InodeId, Timestamp};

use super::{Content, Model, ModelResult};

/// The flags of renameat2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

impl Model {
    /// Answers the attributes of the inode that has the new name.
    pub fn rename(
        &mut self,
        time: Timestamp,
        (parent, name): (InodeId, &[u8]),
        (new_parent, new_name): (InodeId, &[u8]),
        mode: RenameMode,
    ) -> ModelResult<Attr> {
        self.directory(parent)?;
        self.directory(new_parent)?;
        let source = self.find(parent, name)?.ok_or(ErrorCode::NotFound)?;
        let target = self.find(new_parent, new_name)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(ErrorCode::Exists),
            (RenameMode::Exchange, None) => return Err(ErrorCode::NotFound),
            _ => {}
        }
        // The kernel knows an ancestor by the one path entry that both walks share: only when the
        // two directories differ.
        if self.is_above(source, new_parent)? {
            return Err(ErrorCode::Invalid);
        }
        if let Some(target) = target
            && self.is_above(target, parent)?
        {
            return Err(match mode {
                RenameMode::Exchange => ErrorCode::Invalid,
                _ => ErrorCode::NotEmpty,
            });
        }
        if target == Some(source) {
            return self.getattr(source);
        }
        match (mode, target) {
            (RenameMode::Exchange, Some(target)) => {
                self.redirect(time, parent, name, target)?;
                self.redirect(time, new_parent, new_name, source)?;
                self.moved(time, target, parent)?;
            }
            (_, Some(target)) => {
                self.check_replaceable(source, target)?;
                self.remove_name(time, parent, name)?;
                self.redirect(time, new_parent, new_name, source)?;
                let victim = self.get_mut(target)?;
                victim.attr.nlink = if victim.is_dir() { 0 } else { victim.attr.nlink - 1 };
                victim.changed(time);
            }
            (_, None) => {
                self.remove_name(time, parent, name)?;
                self.add_name(time, new_parent, new_name, source)?;
            }
        }
        self.moved(time, source, new_parent)?;
        self.getattr(source)
    }

    fn check_replaceable(&self, source: InodeId, target: InodeId) -> ModelResult<()> {
        match (self.get(source)?.is_dir(), self.get(target)?.names()) {
            (true, None) => Err(ErrorCode::NotDir),
            (false, Some(_)) => Err(ErrorCode::IsDir),
            (true, Some(names)) if !names.is_empty() => Err(ErrorCode::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Makes a name that exists lead to another inode, in its place in the listing.
    fn redirect(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
        inode: InodeId,
    ) -> ModelResult<()> {
        self.change_names(time, parent, |names| {
            for entry in names.iter_mut().filter(|(n, _)| n == name) {
                entry.1 = inode;
            }
        })
    }

    fn moved(&mut self, time: Timestamp, inode: InodeId, to: InodeId) -> ModelResult<()> {
        let node = self.get_mut(inode)?;
        if let Content::Directory { parent, .. } = &mut node.content {
            *parent = to;
        }
        node.changed(time);
        Ok(())
    }

    /// Whether `dir` is `ancestor` or hangs somewhere below it.
    fn is_above(&self, ancestor: InodeId, dir: InodeId) -> ModelResult<bool> {
        let mut at = dir;
        loop {
            if at == ancestor {
                return Ok(true);
            }
            if at == self.root() {
                return Ok(false);
            }
            at = self.parent(at)?;
        }
    }
}
