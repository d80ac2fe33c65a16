//! The requests of ioctl(2) that are answered: those by which chattr(1) and lsattr(1) work.
//!
//! The kernel has checked who may set flags, and opened the inode for the purpose.

use bytes::Bytes;
use libc::{EINVAL, EOPNOTSUPP};
use ozone_types::InodeFlags;

/// `_IOR('f', 1, long)`, `_IOW('f', 2, long)`: the flags as they are, 32 bits whatever the type says.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
/// `_IOR('v', 1, long)`: the generation, which is always 0.
const FS_IOC_GETVERSION: u32 = 0x8008_7601;
/// `_IOR('X', 31, struct fsxattr)`, `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `struct fsxattr`: xflags, extent size, extents, project, copy-on-write extent size: 32 bits each; 8
/// bytes for later.
const FSXATTR_LEN: usize = 28;

/// The same flags under their other bits: (fsx_xflags, ours).
const XFLAGS: [(u32, InodeFlags); 4] = [
    (0x08, InodeFlags::IMMUTABLE),
    (0x10, InodeFlags::APPEND),
    (0x40, InodeFlags::NOATIME),
    (0x80, InodeFlags::NODUMP),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ioctl {
    GetFlags,
    GetFsxattr,
    GetVersion,
    SetFlags(InodeFlags),
}

impl Ioctl {
    /// Errors, as errno: ENOTTY for any other request; EOPNOTSUPP for flags, sizes or projects that
    /// mean nothing here; EINVAL for a request that is cut short.
    pub fn decode(command: u32, data: &[u8]) -> Result<Ioctl, i32> {
        match command {
            FS_IOC_GETFLAGS => Ok(Ioctl::GetFlags),
            FS_IOC_FSGETXATTR => Ok(Ioctl::GetFsxattr),
            FS_IOC_GETVERSION => Ok(Ioctl::GetVersion),
            FS_IOC_SETFLAGS => flags(word(data, 0)?).map(Ioctl::SetFlags),
            FS_IOC_FSSETXATTR => {
                let (xflags, size, project) = (word(data, 0)?, word(data, 4)?, word(data, 12)?);
                let copy_size = word(data, 16)?;
                if size != 0 || project != 0 || copy_size != 0 {
                    return Err(EOPNOTSUPP);
                }
                from_xflags(xflags).map(Ioctl::SetFlags)
            }
            _ => Err(libc::ENOTTY),
        }
    }

    /// What goes back for an inode with these flags.
    pub fn answer(self, of: InodeFlags) -> Bytes {
        match self {
            Ioctl::GetFlags => Bytes::copy_from_slice(&of.bits().to_ne_bytes()),
            Ioctl::GetVersion => Bytes::from_static(&[0; 4]),
            Ioctl::SetFlags(_) => Bytes::new(),
            Ioctl::GetFsxattr => {
                let xflags = XFLAGS.iter().filter(|(_, flag)| of.has(*flag)).map(|(x, _)| x).sum();
                let mut fsxattr = [0; FSXATTR_LEN];
                fsxattr[..4].copy_from_slice(&u32::to_ne_bytes(xflags));
                Bytes::copy_from_slice(&fsxattr)
            }
        }
    }
}

fn word(data: &[u8], at: usize) -> Result<u32, i32> {
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_ne_bytes).ok_or(EINVAL)
}

fn flags(bits: u32) -> Result<InodeFlags, i32> {
    InodeFlags::new(bits).map_err(|err| err.errno())
}

fn from_xflags(xflags: u32) -> Result<InodeFlags, i32> {
    let mut left = xflags;
    let mut found = InodeFlags::NONE;
    for (bit, flag) in XFLAGS {
        if left & bit != 0 {
            found = found | flag;
            left &= !bit;
        }
    }
    if left == 0 { Ok(found) } else { Err(EOPNOTSUPP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_asking_mean_the_same() {
        let both = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
        let mut fsxattr = [0u8; FSXATTR_LEN];
        fsxattr[0] = 0x18;
        assert_eq!(Ioctl::decode(FS_IOC_FSSETXATTR, &fsxattr), Ok(Ioctl::SetFlags(both)));
        let word = 0x30u32.to_ne_bytes();
        assert_eq!(Ioctl::decode(FS_IOC_SETFLAGS, &word), Ok(Ioctl::SetFlags(both)));
        assert_eq!(Ioctl::GetFsxattr.answer(both), fsxattr[..]);
        assert_eq!(Ioctl::GetFlags.answer(both), word[..]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let mut fsxattr = [0u8; FSXATTR_LEN];
        fsxattr[12] = 7; // a project
        assert_eq!(Ioctl::decode(FS_IOC_FSSETXATTR, &fsxattr), Err(EOPNOTSUPP));
        fsxattr[12] = 0;
        fsxattr[1] = 0x80; // DAX
        assert_eq!(Ioctl::decode(FS_IOC_FSSETXATTR, &fsxattr), Err(EOPNOTSUPP));
        assert_eq!(Ioctl::decode(FS_IOC_FSSETXATTR, &fsxattr[..8]), Err(EINVAL));
        assert_eq!(Ioctl::decode(FS_IOC_SETFLAGS, &8u32.to_ne_bytes()), Err(EOPNOTSUPP));
        assert_eq!(Ioctl::decode(FS_IOC_SETFLAGS, b""), Err(EINVAL));
        assert_eq!(Ioctl::decode(0x5401, b""), Err(libc::ENOTTY));
    }
}
