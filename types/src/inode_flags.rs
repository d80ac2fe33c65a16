//! What chattr(1) sets.

use std::ops::BitOr;

use crate::error::{ErrorCode, FsError, FsResult};

/// Flags of an inode, by the bits of FS_IOC_GETFLAGS (`linux/fs.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InodeFlags(u32);

impl InodeFlags {
    pub const NONE: InodeFlags = InodeFlags(0);
    /// `i`: neither its data nor its attributes nor its names change; a directory's names do not change.
    pub const IMMUTABLE: InodeFlags = InodeFlags(0x10);
    /// `a`: opened for writing only to append; a directory only gains names. Its own name stays, and its
    /// attributes.
    pub const APPEND: InodeFlags = InodeFlags(0x20);
    /// `d`: for dump(8), which leaves it out.
    pub const NODUMP: InodeFlags = InodeFlags(0x40);
    /// `A`: reading does not change the access time.
    pub const NOATIME: InodeFlags = InodeFlags(0x80);

    const ALL: u32 = Self::IMMUTABLE.0 | Self::APPEND.0 | Self::NODUMP.0 | Self::NOATIME.0;
    /// What a new inode gets from its directory, as on ext4.
    const INHERITED: u32 = Self::NODUMP.0 | Self::NOATIME.0;

    /// Errors: NOT_SUPPORTED_OPERATION for a bit that means nothing here.
    pub fn new(bits: u32) -> FsResult<InodeFlags> {
        match bits & !Self::ALL {
            0 => Ok(InodeFlags(bits)),
            odd => Err(FsError::with(ErrorCode::Unsupported, format!("inode flags {odd:#x}"))),
        }
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    pub const fn has(self, flag: InodeFlags) -> bool {
        self.0 & flag.0 != 0
    }

    pub const fn inherited(self) -> InodeFlags {
        InodeFlags(self.0 & Self::INHERITED)
    }
}

impl BitOr for InodeFlags {
    type Output = InodeFlags;

    fn bitor(self, other: InodeFlags) -> InodeFlags {
        InodeFlags(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_is_taken() {
        assert_eq!(InodeFlags::new(0).unwrap(), InodeFlags::NONE);
        let flags = InodeFlags::new(0xf0).unwrap();
        assert!(flags.has(InodeFlags::IMMUTABLE) && flags.has(InodeFlags::NOATIME));
        assert_eq!(flags.inherited(), InodeFlags::NODUMP | InodeFlags::NOATIME);
        for odd in [0x1, 0x8, 0x100, 0x8_0000, 1 << 31] {
            assert_eq!(InodeFlags::new(0x10 | odd).unwrap_err().code(), ErrorCode::Unsupported);
        }
    }
}
