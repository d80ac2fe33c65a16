//! What a batch does to its bucket's usage, and whether the bucket's quotas allow it.
//!
//! Names, and bytes that nobody has announced, are compared with the quotas entry by entry. Writers
//! that keep data in memory reserve room for it first (`reserve`); what is reserved counts as used for
//! everybody else, so a write that was answered finds its room whenever it comes. With a quota
//! `bytes` + `reserved` stay within it; nothing that makes their sum no greater is ever refused.

use std::io;

use ozone_proto::metad_log::{BucketUsage, ReservationRecord};
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{BucketId, ErrorCode, SessionId, VolumeId};

use super::Change;
use crate::error::{OpResult, refuse};
use crate::tables::{
    BUCKET_IDS, BUCKET_USAGE, BUCKETS, BucketKey, InodeKey, ORPHANS, RESERVATIONS, ReservationKey,
};

/// What a batch has changed so far.
#[derive(Debug, Default)]
pub(super) struct UsageChange {
    pub bytes: i64,
    pub names: i64,
    pub inodes: i64,
    /// The session's reservation, once it was looked at.
    reservation: Option<Reservation>,
    /// Bytes and names when the current entry began.
    mark: (i64, i64),
    /// What the current entry has used up of the reservation.
    credit: u64,
    /// Looked up when something grows for the first time.
    limits: Option<Limits>,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    before: u64,
    now: u64,
}

/// A bucket's quotas, and its usage before the batch.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    bytes: Option<u64>,
    names: Option<u64>,
    used: BucketUsage,
}

impl UsageChange {
    fn reserved(&self) -> i64 {
        // Both are sums of a bucket's bytes, far below 2^63.
        self.reservation.map_or(0, |r| r.now as i64 - r.before as i64)
    }

    fn is_none(&self) -> bool {
        (self.bytes, self.names, self.inodes, self.reserved()) == (0, 0, 0, 0)
    }

    /// `before` as this batch leaves it.
    fn added_to(&self, bucket: BucketId, before: &BucketUsage) -> io::Result<BucketUsage> {
        let add = |count: u64, change: i64, what: &str| {
            count.checked_add_signed(change).ok_or_else(|| {
                BUCKET_USAGE.corrupt(&bucket, format_args!("{what}: {count} {change:+}"))
            })
        };
        Ok(BucketUsage {
            bytes: add(before.bytes, self.bytes, "bytes")?,
            names: add(before.names, self.names, "names")?,
            inodes: add(before.inodes, self.inodes, "inodes")?,
            reserved: add(before.reserved, self.reserved(), "reserved")?,
        })
    }

    /// Writes the usage and the reservation.
    pub fn finish(&self, txn: &mut Txn<'_>, key: ReservationKey) -> io::Result<()> {
        if self.is_none() {
            return Ok(());
        }
        match self.reservation {
            Some(Reservation { now: 0, .. }) => RESERVATIONS.delete(txn, &key),
            Some(Reservation { now, .. }) => {
                RESERVATIONS.put(txn, &key, &ReservationRecord { bytes: now });
            }
            None => {}
        }
        let bucket = key.bucket;
        let only_reserved = (self.bytes, self.names, self.inodes) == (0, 0, 0);
        let before = match BUCKET_USAGE.get(txn, &bucket)? {
            Some(before) => before,
            // Reservations may outlast their bucket.
            None if only_reserved => return Ok(()),
            None => return Err(BUCKET_USAGE.corrupt(&bucket, "the row is missing")),
        };
        let usage = self.added_to(bucket, &before)?;
        // The usage of a deleted bucket goes with its last inode.
        if usage.inodes == 0 && !BUCKET_IDS.has(txn, &bucket)? {
            BUCKET_USAGE.delete(txn, &bucket);
        } else {
            BUCKET_USAGE.put(txn, &bucket, &usage);
        }
        Ok(())
    }
}

impl Change<'_, '_> {
    /// Ends an entry: what it has added must be within the bucket's quotas. Errors: QUOTA_EXCEEDED;
    /// QUOTA_RESERVED where there will or may be room in a moment.
    pub fn end_entry(&mut self) -> OpResult<()> {
        let credit = std::mem::take(&mut self.usage.credit);
        let (bytes, names) = (self.usage.bytes, self.usage.names);
        let before = std::mem::replace(&mut self.usage.mark, (bytes, names));
        let (bytes_grew, names_grew) = (bytes > before.0, names > before.1);
        if !bytes_grew && !names_grew {
            return Ok(());
        }
        let limits = self.limits()?;
        let now = self.usage.added_to(self.bucket, &limits.used)?;
        if let Some(quota) = limits.names.filter(|&quota| names_grew && now.names > quota) {
            let why = format!(
                "The namespace quota of Bucket:{} exceeded: quotaInNamespace: {quota} but \
                 namespace consumed: {}.",
                self.bucket_name()?,
                now.names
            );
            return refuse(ErrorCode::Quota, why);
        }
        let covered = u64::try_from(bytes - before.0).is_ok_and(|grown| grown <= credit);
        match limits.bytes {
            Some(quota) if bytes_grew && !covered && now.bytes + now.reserved > quota => {
                self.no_room(quota, now.bytes)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses what would make the bucket's bytes `consumed`.
    fn no_room<T>(&self, quota: u64, consumed: u64) -> OpResult<T> {
        let name = self.bucket_name()?;
        if consumed <= quota {
            let why = format!("what is left of the quota of bucket {name} is reserved by writers");
            return refuse(ErrorCode::QuotaReserved, why);
        }
        // What they take is freed in the background, mostly at once.
        let orphans = InodeKey::prefix(self.bucket);
        if ORPHANS.prefix(self.txn, &orphans).next().transpose()?.is_some() {
            let why = format!("files that were deleted from bucket {name} are still being freed");
            return refuse(ErrorCode::QuotaReserved, why);
        }
        let why = format!(
            "The DiskSpace quota of bucket:{name} exceeded quotaInBytes: {quota} Bytes but \
             diskspace consumed: {consumed} Bytes."
        );
        refuse(ErrorCode::Quota, why)
    }

    /// For a refusal.
    fn bucket_name(&self) -> io::Result<String> {
        Ok(BUCKET_IDS.need(self.txn, &self.bucket)?.name)
    }

    /// Whether the bucket is known to have a quota of bytes: only looked at when something grew.
    pub fn knows_byte_quota(&self) -> bool {
        self.usage.limits.as_ref().is_some_and(|limits| limits.bytes.is_some())
    }

    fn limits(&mut self) -> io::Result<Limits> {
        if let Some(limits) = self.usage.limits {
            return Ok(limits);
        }
        let limits = find_limits(self.txn, self.bucket)?;
        Ok(*self.usage.limits.insert(limits))
    }

    /// Takes up to `bytes` off the session's reservation, for growth of the current entry.
    pub(super) fn use_credit(&mut self, bytes: u64) -> io::Result<()> {
        if bytes != 0 {
            let reservation = self.reservation()?;
            let used = reservation.now.min(bytes);
            reservation.now -= used;
            self.usage.credit += used;
        }
        Ok(())
    }

    /// Gives up to `bytes` of the session's reservation back.
    pub(super) fn give_back(&mut self, bytes: u64) -> io::Result<()> {
        let reservation = self.reservation()?;
        reservation.now = reservation.now.saturating_sub(bytes);
        Ok(())
    }

    /// Adds to the session's reservation what `share` makes of the bucket's room; `None` if there is no
    /// quota. Errors: QUOTA_EXCEEDED, QUOTA_RESERVED if that is less than `least`.
    pub(super) fn reserve_room(
        &mut self,
        least: u64,
        share: impl FnOnce(u64) -> u64,
    ) -> OpResult<Option<u64>> {
        let limits = self.limits()?;
        let Some(quota) = limits.bytes else { return Ok(None) };
        let now = self.usage.added_to(self.bucket, &limits.used)?;
        let room = quota.saturating_sub(now.bytes.saturating_add(now.reserved));
        if least > room {
            return self.no_room(quota, now.bytes.saturating_add(least));
        }
        let granted = share(room);
        self.reservation()?.now += granted;
        Ok(Some(granted))
    }

    fn reservation(&mut self) -> io::Result<&mut Reservation> {
        if self.usage.reservation.is_none() {
            let row = RESERVATIONS.get(self.txn, &self.reservation_key())?;
            let bytes = row.map_or(0, |row| row.bytes);
            self.usage.reservation = Some(Reservation { before: bytes, now: bytes });
        }
        let none = Reservation { before: 0, now: 0 };
        Ok(self.usage.reservation.get_or_insert(none))
    }

    pub(super) fn reservation_key(&self) -> ReservationKey {
        ReservationKey { session: self.session, bucket: self.bucket }
    }
}

fn find_limits(tables: &impl Read, bucket: BucketId) -> io::Result<Limits> {
    // In a deleted bucket nothing grows but files that are still open.
    let Some(place) = BUCKET_IDS.get(tables, &bucket)? else { return Ok(Limits::default()) };
    let key = BucketKey { volume: VolumeId(place.volume), name: place.name };
    let record = BUCKETS.need(tables, &key)?;
    let quota = |value: i64| u64::try_from(value).ok().filter(|&quota| quota > 0);
    Ok(Limits {
        bytes: quota(record.quota_bytes),
        names: quota(record.quota_names),
        used: BUCKET_USAGE.need(tables, &bucket)?,
    })
}

/// A session has ended: its reservations are nobody's. Rows: these, and their buckets' usage.
pub(super) fn drop_reservations(txn: &mut Txn<'_>, session: SessionId) -> io::Result<()> {
    let prefix = ReservationKey::prefix(session);
    let rows: Vec<_> = RESERVATIONS.prefix(txn, &prefix).collect::<io::Result<_>>()?;
    for (key, _) in rows {
        let mut cx = Change::new(txn, key.session, key.bucket);
        cx.give_back(u64::MAX)?;
        cx.finish()?;
    }
    Ok(())
}
