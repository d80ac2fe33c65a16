//! Extended attributes. Reads ask metad, unless the inode is known to have none; changes are entries
//! of the queue, behind the file's data.

use std::sync::Arc;

use bytes::Bytes;
use ozone_proto::metad::{self as wire, GetxattrRequest, ListxattrRequest, RemoveXattr, entry::Op};
use ozone_types::limits::XATTR_SIZE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult, InodeId, XattrName};

use crate::api::{SetXattr, XattrMode};
use crate::calls::call;
use crate::core::Core;
use crate::file::handle::Held;

impl Core {
    pub async fn getxattr(self: &Arc<Self>, inode: InodeId, name: &[u8]) -> FsResult<Bytes> {
        let name = XattrName::new(name)?;
        let lost = || name == XattrName::capability() && self.loses_capability(inode);
        if self.has_no_xattrs(inode) || lost() {
            return Err(ErrorCode::NoData.into());
        }
        let reply = call(&self.session, |live| {
            let request = GetxattrRequest {
                session: live.id,
                bucket: self.bucket().0,
                inode: inode.0,
                name: name.as_bytes().to_vec(),
            };
            async move { self.metad.getxattr(request).await }
        });
        Ok(reply.await?.value.into())
    }

    pub async fn listxattr(self: &Arc<Self>, inode: InodeId) -> FsResult<Vec<Bytes>> {
        if self.has_no_xattrs(inode) {
            return Ok(Vec::new());
        }
        let lost = self.loses_capability(inode).then(XattrName::capability);
        let reply = call(&self.session, |live| {
            let (session, bucket) = (live.id, self.bucket().0);
            let request = ListxattrRequest { session, bucket, inode: inode.0 };
            async move { self.metad.listxattr(request).await }
        });
        let names = reply.await?.names.into_iter();
        let hidden = lost.as_ref().map(XattrName::as_bytes);
        Ok(names.filter(|name| Some(&name[..]) != hidden).map(Bytes::from).collect())
    }

    pub async fn setxattr(self: &Arc<Self>, inode: InodeId, set: SetXattr) -> FsResult<()> {
        XattrName::new(&set.name)?;
        if set.value.len() > XATTR_SIZE_MAX {
            return Err(FsError::with(ErrorCode::Range, "the attribute's value is too long"));
        }
        let op = wire::SetXattr {
            inode: inode.0,
            name: set.name.into(),
            value: set.value.into(),
            create: set.mode == XattrMode::Create,
            replace: set.mode == XattrMode::Replace,
            kill_sgid: set.kill_sgid,
        };
        let held = Held::new(self, inode, false);
        self.change_behind(held.file(), Op::SetXattr(op)).await.map(drop)
    }

    pub async fn removexattr(self: &Arc<Self>, inode: InodeId, name: &[u8]) -> FsResult<()> {
        let name = XattrName::new(name)?.as_bytes().to_vec();
        let op = RemoveXattr { inode: inode.0, name };
        let held = Held::new(self, inode, false);
        self.change_behind(held.file(), Op::RemoveXattr(op)).await.map(drop)
    }

    /// Whether the inode is known to have none, so that nobody need be asked.
    fn has_no_xattrs(&self, inode: InodeId) -> bool {
        self.known_attr(inode).is_some_and(|attr| !attr.xattrs)
    }

    /// Whether data that is written behind takes the file's capabilities.
    fn loses_capability(&self, inode: InodeId) -> bool {
        self.files.get(inode).is_some_and(|file| file.state.lock().kills_suid())
    }
}
