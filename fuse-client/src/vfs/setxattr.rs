use bytes::Bytes;
use ozone_client::{SetXattr, XattrMode};
use ozone_types::{FsResult, InodeId, XattrName};

use super::{Backend, Request, Vfs};

impl<B: Backend> Vfs<B> {
    /// Setgid falls with an access ACL that is set by somebody outside the file's group, as with
    /// chmod(2). The kernel knows who that is, but says so in a form of the request that we do not ask
    /// for, because fuser cannot read it.
    pub async fn setxattr(
        &self,
        request: Request,
        inode: InodeId,
        name: Bytes,
        value: Bytes,
        mode: XattrMode,
    ) -> FsResult<()> {
        let by_owner = XattrName::new(&name)?.is_access_acl() && request.uid != 0;
        let kill_sgid = by_owner && !request.belongs_to(self.client.getattr(inode).await?.gid);
        self.client.setxattr(inode, SetXattr { name, value, mode, kill_sgid }).await
    }
}

impl Request {
    /// Whether the caller is in a group. One that cannot be looked at is in no more than its own.
    fn belongs_to(self, gid: u32) -> bool {
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
