//! Setgid of a file whose group may not execute it.
//!
//! Whoever changes a file without CAP_FSETID takes setuid from it, and setgid where the group may
//! execute: metad does both with the change itself. Setgid without group execution means nothing to
//! exec(2), and somebody of the file's group leaves it; since Linux 6.0 somebody else does not. Only
//! here the groups of the caller can be seen. As in Linux it goes in a change of its own, before the one
//! that it is due to. write(2) is left out: FUSE defines there that group execution decides.

use ozone_client::SetAttr;
use ozone_types::{FsResult, InodeId};

use super::{Backend, Request, Vfs};

const SETGID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;

impl<B: Backend> Vfs<B> {
    /// Called before a change of the file's space or size.
    pub(super) async fn drop_strangers_setgid(
        &self,
        request: Request,
        inode: InodeId,
    ) -> FsResult<()> {
        if request.uid == 0 {
            return Ok(());
        }
        let attr = self.client.getattr(inode).await?;
        if attr.mode & (SETGID | GROUP_EXEC) != SETGID || request.belongs_to(attr.gid) {
            return Ok(());
        }
        let mode = Some(attr.mode & 0o7777 & !SETGID);
        self.client.setattr(inode, SetAttr { mode, ..SetAttr::default() }).await.map(drop)
    }
}

impl Request {
    /// Whether the caller is in a group. One that cannot be looked at is in no more than its own.
    pub(super) fn belongs_to(self, gid: u32) -> bool {
        let status = || std::fs::read_to_string(format!("/proc/{}/status", self.tid));
        self.gid == gid || status().is_ok_and(|status| lists_group(&status, gid))
    }
}

/// Whether the text of /proc/TID/status has `gid` among the supplementary groups.
fn lists_group(status: &str, gid: u32) -> bool {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|group| group.parse() == Ok(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_a_status() {
        let status = "Name:\tGroups: 7\nGid:\t5\t5\t5\t5\nFDSize:\t64\nGroups:\t10 1001 65534 \n";
        for (gid, listed) in [(10, true), (1001, true), (65534, true), (5, false), (7, false)] {
            assert_eq!(lists_group(status, gid), listed, "{gid}");
        }
        assert!(!lists_group(status, 100), "no part of a number");
        assert!(!lists_group("Groups:\t \n", 0));
        assert!(!lists_group("", 0));
    }

    #[test]
    fn one_who_cannot_be_looked_at_has_its_own_group() {
        let nobody = Request { uid: 1, gid: 5, tid: 0 };
        assert!(nobody.belongs_to(5));
        assert!(!nobody.belongs_to(0));
    }
}
