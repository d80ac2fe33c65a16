use ozone_client::{SetAttr, TimeSet};
use ozone_types::{Attr, FileKind, FsResult, InodeId};

use super::{Backend, Request, Vfs};

/// What chmod, chown, truncate and utimensat ask for; `None` leaves an attribute alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeSet>,
    pub mtime: Option<TimeSet>,
    pub ctime: Option<TimeSet>,
}

impl Changes {
    /// Whether setuid and setgid fall with this change: at every change of owner or group, and at a
    /// change of size (O_TRUNC comes as one, too) by anyone but root. With HANDLE_KILLPRIV_V2 the
    /// kernel leaves this to us. A change that sets the mode says itself what it wants.
    fn kills_suid(&self, request: Request) -> bool {
        let owner = self.uid.is_some() || self.gid.is_some();
        let size = self.size.is_some() && request.uid != 0;
        (owner || size) && self.mode.is_none()
    }
}

impl<B: Backend> Vfs<B> {
    pub async fn setattr(
        &self,
        request: Request,
        inode: InodeId,
        changes: Changes,
    ) -> FsResult<Attr> {
        let mut kill_suid_sgid = changes.kills_suid(request);
        if kill_suid_sgid && changes.size.is_none() {
            // A directory keeps its setgid bit through chown(2); only files have a size to change.
            kill_suid_sgid = self.client.getattr(inode).await?.kind != FileKind::Directory;
        }
        if kill_suid_sgid {
            self.drop_strangers_setgid(request, inode).await?;
        }
        let set = SetAttr {
            mode: changes.mode.map(|mode| mode & 0o7777),
            uid: changes.uid,
            gid: changes.gid,
            size: changes.size,
            atime: changes.atime,
            mtime: changes.mtime,
            ctime: changes.ctime,
            kill_suid_sgid,
            flags: None,
        };
        self.client.setattr(inode, set).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Request = Request { uid: 0, gid: 0, tid: 1 };
    const USER: Request = Request { uid: 1000, gid: 1000, tid: 1 };

    #[test]
    fn setuid_falls_with_owner_and_size() {
        let chown = Changes { uid: Some(1), ..Changes::default() };
        let chgrp = Changes { gid: Some(1), ..Changes::default() };
        let truncate = Changes { size: Some(0), ..Changes::default() };
        let chmod = Changes { mode: Some(0o4755), ..Changes::default() };
        let touch = Changes { mtime: Some(TimeSet::Now), ..Changes::default() };
        for (changes, by_root, by_user) in [
            (chown, true, true),
            (chgrp, true, true),
            (truncate, false, true),
            (chmod, false, false),
            (touch, false, false),
        ] {
            assert_eq!(changes.kills_suid(ROOT), by_root, "{changes:?}");
            assert_eq!(changes.kills_suid(USER), by_user, "{changes:?}");
        }
    }
}
