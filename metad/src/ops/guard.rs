//! What the flags of chattr(1) forbid, to everybody and with EPERM: the rules of Linux's VFS, which cannot
//! keep them itself where FUSE shows it no flags.

use ozone_types::{ErrorCode, InodeFlags};

use super::node::Node;
use crate::error::{OpResult, refuse};

impl Node {
    pub fn flags(&self) -> InodeFlags {
        // The table's decoding has checked them.
        InodeFlags::new(self.row.flags).unwrap_or_default()
    }

    /// Something may be added: bytes, or a name in this directory.
    pub fn may_grow(&self) -> OpResult<()> {
        self.forbidden_by(InodeFlags::IMMUTABLE)
    }

    /// What is there may become something else: attributes, the size, names in this directory, the
    /// inode's own names.
    pub fn may_change(&self) -> OpResult<()> {
        self.forbidden_by(InodeFlags::IMMUTABLE | InodeFlags::APPEND)
    }

    fn forbidden_by(&self, flags: InodeFlags) -> OpResult<()> {
        if self.flags().has(flags) {
            return refuse(ErrorCode::Perm, "the inode is immutable or only appended to (chattr)");
        }
        Ok(())
    }
}
