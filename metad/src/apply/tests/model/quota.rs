//! Quotas and reservations as they should be, counted anew from the model for every step.

use std::collections::BTreeMap;

use ozone_proto::metad::Reserve;

use super::super::quotas::bucket_quota;
use super::super::*;
use super::Pair;

/// A bucket's quotas, and what sessions have reserved of its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Quotas {
    bytes: Option<u64>,
    names: Option<u64>,
    reserved: BTreeMap<SessionId, u64>,
}

/// What a bucket uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub bytes: u64,
    pub names: u64,
    /// There are inodes without names.
    pub orphans: bool,
}

impl Quotas {
    pub(super) fn sum(&self) -> u64 {
        self.reserved.values().sum()
    }

    fn no_room(used: Used, consumed: u64, quota: u64) -> ErrorCode {
        match consumed <= quota || used.orphans {
            true => ErrorCode::QuotaReserved,
            false => ErrorCode::Quota,
        }
    }

    /// A step has made `now` of `before`.
    pub(super) fn charge(
        &mut self,
        session: SessionId,
        before: Used,
        now: Used,
        credit: u64,
    ) -> Result<(), ErrorCode> {
        let own = self.reserved.entry(session).or_default();
        let covered = credit.min(*own);
        *own -= covered;
        if now.names > before.names && self.names.is_some_and(|quota| now.names > quota) {
            return Err(ErrorCode::Quota);
        }
        match self.bytes {
            Some(quota) if now.bytes > before.bytes + covered => {
                let fits = now.bytes + self.sum() <= quota;
                if fits { Ok(()) } else { Err(Quotas::no_room(now, now.bytes, quota)) }
            }
            _ => Ok(()),
        }
    }

    fn reserve(
        &mut self,
        session: SessionId,
        used: Used,
        [bytes, least, release]: [u64; 3],
    ) -> Result<u64, ErrorCode> {
        let own = self.reserved.entry(session).or_default();
        *own = own.saturating_sub(release);
        let (true, Some(quota)) = (bytes > 0, self.bytes) else {
            return Ok(if bytes > 0 { u64::MAX } else { 0 });
        };
        let room = quota.saturating_sub(used.bytes + self.sum());
        if least > room {
            return Err(Quotas::no_room(used, used.bytes + least, quota));
        }
        let granted = bytes.min((room / 8).max(least));
        *self.reserved.entry(session).or_default() += granted;
        Ok(granted)
    }
}

impl Pair {
    pub(super) fn used(&self) -> Used {
        Used {
            bytes: self.model.inodes().map(|attr| attr.allocated).sum(),
            names: self.model.names(),
            orphans: self.model.inodes().any(|attr| attr.nlink == 0),
        }
    }

    /// Quotas of so much more than is in use, or none.
    pub(super) fn set_quotas(&mut self, bytes: Option<i64>, names: Option<i64>) {
        let used = self.used();
        let least = [used.bytes + self.quotas.sum(), used.names];
        let asked = [bytes, names].map(|slack| slack.unwrap_or(i64::MIN));
        let mut quotas = [-1; 2];
        for n in 0..2 {
            if asked[n] != i64::MIN {
                quotas[n] = (least[n] as i64 + asked[n]).max(1);
            }
        }
        let refused = (0..2).any(|n| quotas[n] != -1 && quotas[n] < least[n] as i64);
        let command = bucket_quota("bucket1", Some(quotas[0]), Some(quotas[1]));
        if refused {
            assert_eq!(self.bed.refused(command), ErrorCode::QuotaError);
            return;
        }
        self.bed.bucket(command);
        let [bytes, names] = quotas.map(|quota| u64::try_from(quota).ok());
        (self.quotas.bytes, self.quotas.names) = (bytes, names);
    }

    /// A reservation of the session at work, or of another one.
    pub(super) fn reserve(&mut self, other: bool, bytes: u64, least: u64, release: u64) {
        let mine = self.bed.session;
        if other {
            let session = self.other.unwrap_or_else(|| self.bed.open_session());
            self.other = Some(session);
            self.bed.session = session;
        }
        let bytes = bytes.max(least);
        let used = self.used();
        let mut quotas = self.quotas.clone();
        let expected = quotas.reserve(self.bed.session, used, [bytes, least, release]);
        let reserve = Op::Reserve(Reserve { bytes, least, release });
        let answer = self.bed.commit_replies(vec![reserve]);
        self.bed.session = mine;
        let answer = answer.map(|replies| replies[0].length);
        assert_eq!(answer.map_err(|r| ErrorCode::from_wire(r.code).unwrap()), expected);
        let outcome = expected.map_or_else(|code| code.text(), |_| "ok");
        *self.seen.entry(("reserve", outcome)).or_default() += 1;
        if expected.is_ok() {
            self.quotas = quotas;
        }
    }

    /// The other session is over.
    pub(super) fn end_other(&mut self) {
        if let Some(session) = self.other.take() {
            let why = String::new();
            self.bed.run(Kind::SessionEnd(log::SessionEnd { session: session.0, why }));
            self.quotas.reserved.remove(&session);
        }
    }

    pub(super) fn compare_usage(&self) {
        let usage = tables::BUCKET_USAGE.need(&self.bed.view(), &self.bed.bucket).unwrap();
        let used = self.used();
        let reserved = self.quotas.sum();
        assert_eq!((usage.bytes, usage.names, usage.reserved), (used.bytes, used.names, reserved));
        assert!(self.quotas.bytes.is_none_or(|quota| used.bytes + reserved <= quota));
        assert!(self.quotas.names.is_none_or(|quota| used.names <= quota));
    }
}
