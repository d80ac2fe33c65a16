//! A quota of bytes, and what sessions have reserved of it.

use std::collections::HashMap;

use ozone_proto::metad::{Entry, EntryReply, Reserve, entry::Op};
use ozone_types::{ErrorCode, FsResult};

use super::{FakeMetad, Inner, refuse};

#[derive(Clone, Default)]
pub(super) struct Quota {
    pub limit: Option<u64>,
    pub reserved: HashMap<u64, u64>,
    /// Reserve entries that have come.
    pub asked: usize,
}

impl Quota {
    fn sum(&self) -> u64 {
        self.reserved.values().sum()
    }
}

impl FakeMetad {
    pub fn set_quota(&self, limit: Option<u64>) {
        self.inner.lock().quota.limit = limit;
    }

    /// Bytes that extents cover, and bytes that are reserved.
    pub fn usage(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.used(), inner.quota.sum())
    }

    pub fn reserves(&self) -> usize {
        self.inner.lock().quota.asked
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.nodes.values().flat_map(|node| node.extents.values()).map(|extent| extent.0).sum()
    }

    pub(super) fn reserve(&mut self, session: u64, r: &Reserve) -> FsResult<EntryReply> {
        let used = self.used();
        self.quota.asked += 1;
        let own = self.quota.reserved.entry(session).or_default();
        *own = own.saturating_sub(r.release);
        let Some(limit) = self.quota.limit.filter(|_| r.bytes > 0) else {
            let length = if r.bytes > 0 { u64::MAX } else { 0 };
            return Ok(EntryReply { length, ..EntryReply::default() });
        };
        let room = limit.saturating_sub(used + self.quota.sum());
        if r.least > room {
            let ever = used + r.least <= limit;
            return refuse(if ever { ErrorCode::QuotaReserved } else { ErrorCode::Quota });
        }
        let length = r.bytes.min((room / 8).max(r.least));
        *self.quota.reserved.entry(session).or_default() += length;
        Ok(EntryReply { length, ..EntryReply::default() })
    }

    /// Executes an entry if what it adds is allowed.
    pub(super) fn apply(&mut self, session: u64, entry: &Entry) -> FsResult<EntryReply> {
        let before = self.used();
        let reply = self.execute(session, entry)?;
        let credit = if let Some(Op::Write(write)) = &entry.op { write.credit } else { 0 };
        let own = self.quota.reserved.entry(session).or_default();
        let covered = credit.min(*own);
        *own -= covered;
        let used = self.used();
        match self.quota.limit {
            Some(limit) if used > before + covered && used > limit => refuse(ErrorCode::Quota),
            Some(limit) if used > before + covered && used + self.quota.sum() > limit => {
                refuse(ErrorCode::QuotaReserved)
            }
            _ => Ok(reply),
        }
    }
}
