//! Listings: `.` and `..` first, then the server's entries in the order of their cookies.
//!
//! An offset says where a listing goes on: 0 at the beginning, 1 after `.`, 2 after `..`, and 2 + the
//! cookie after an entry. A cookie is stable while its name lives, so a listing survives any change of
//! the directory, and an offset means the same after years (telldir(3), or an NFS client).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ozone_client::{DirEntry, DirPage};
use ozone_types::limits::READDIR_PAGE;
use ozone_types::{Attr, FileKind, FsResult, InodeId};
use parking_lot::Mutex;

use super::{Backend, Handle, Vfs};

const AFTER_DOT: u64 = 1;
const AFTER_DOTS: u64 = 2;

/// One line of a listing.
#[derive(Clone, Debug)]
pub struct Entry {
    pub inode: InodeId,
    pub kind: FileKind,
    pub name: Box<[u8]>,
    /// Where the listing goes on after this one.
    pub next: u64,
    /// With attributes asked for, always there, except for `.` and `..`.
    pub attr: Option<Attr>,
}

/// Part of a listing, on its way into the kernel's buffer.
#[derive(Debug)]
pub struct Batch {
    at: u64,
    dots: VecDeque<Entry>,
    entries: VecDeque<DirEntry>,
    end: bool,
    attrs: bool,
}

/// What an open directory remembers between two requests.
pub(super) struct Listing {
    /// Entries that were fetched and did not fit. Names only: attributes that are older than the
    /// request they answer could make the kernel cut the cached data of a file that has grown since.
    ahead: Mutex<Option<Batch>>,
    /// How many entries with attributes go into one answer; what does not fit is fetched again.
    room: AtomicU32,
    /// The last cookie when the listing began. It ends there, or a program that renames what it finds
    /// would find it again for ever.
    last: AtomicU64,
}

impl Default for Listing {
    fn default() -> Self {
        // What fits in the 32 KiB that libc asks for.
        let (room, last) = (AtomicU32::new(192), AtomicU64::new(u64::MAX));
        Listing { ahead: Mutex::new(None), room, last }
    }
}

impl Listing {
    /// Cuts off what is newer than the listing. `from` is the cookie that the page was asked for.
    fn bound(&self, from: u64, page: &mut DirPage) {
        if from == 0 {
            self.last.store(page.last_cookie, Ordering::Relaxed);
        }
        let last = self.last.load(Ordering::Relaxed);
        let old = page.entries.partition_point(|entry| entry.cookie <= last);
        page.end |= old < page.entries.len();
        page.entries.truncate(old);
    }
}

impl<B: Backend> Vfs<B> {
    /// Names, and with `attrs` (readdirplus) also what they stand for, from `offset`. Pass the batch on
    /// with [`Vfs::fill`].
    pub async fn readdir(
        &self,
        inode: InodeId,
        handle: Handle,
        offset: u64,
        attrs: bool,
    ) -> FsResult<Batch> {
        let dir = self.dirs.get(handle)?;
        let ahead = dir.listing.ahead.lock().take();
        // Where a listing starts again (rewinddir), it must show the directory as it is now.
        if let Some(batch) = ahead
            && !attrs
            && batch.at == offset
            && offset >= AFTER_DOTS
            && (batch.end || !batch.entries.is_empty())
        {
            return Ok(batch);
        }
        let max = if attrs { dir.listing.room.load(Ordering::Relaxed) } else { READDIR_PAGE };
        let mut from = offset.saturating_sub(AFTER_DOTS);
        loop {
            let mut page = self.client.readdir(inode, from, max, attrs).await?;
            dir.listing.bound(from, &mut page);
            let last = page.entries.last().map(|entry| entry.cookie);
            // An entry without the attributes asked for went away since it was listed.
            page.entries.retain(|entry| !attrs || entry.attr.is_some());
            match last {
                // An empty answer would end the listing, so go on behind what went away.
                Some(cookie) if page.entries.is_empty() && !page.end => from = cookie,
                _ => return Ok(Batch::new(inode, offset, page, attrs)),
            }
        }
    }

    /// Hands the batch's entries to `push` until that answers false for want of room, and keeps the
    /// rest for the request that follows.
    pub fn fill(&self, handle: Handle, mut batch: Batch, push: impl FnMut(&Entry) -> bool) {
        let pushed = batch.fill(push);
        let Ok(dir) = self.dirs.get(handle) else { return };
        if !batch.attrs {
            *dir.listing.ahead.lock() = Some(batch);
        } else if !batch.entries.is_empty() {
            dir.listing.room.store(pushed + 1, Ordering::Relaxed);
        } else if !batch.end {
            let more = (pushed * 2).clamp(16, READDIR_PAGE);
            dir.listing.room.store(more, Ordering::Relaxed);
        }
    }
}

impl Batch {
    fn new(inode: InodeId, offset: u64, page: DirPage, attrs: bool) -> Batch {
        let dots = [(AFTER_DOT, &b"."[..], inode), (AFTER_DOTS, b"..", page.parent)];
        let dots = dots.into_iter().filter(|&(next, ..)| offset < next);
        let dots = dots.map(|(next, name, inode)| Entry {
            inode,
            kind: FileKind::Directory,
            name: name.into(),
            next,
            attr: None,
        });
        Batch {
            at: offset,
            dots: dots.collect(),
            entries: page.entries.into(),
            end: page.end,
            attrs,
        }
    }

    /// The number of entries that went in.
    fn fill(&mut self, mut push: impl FnMut(&Entry) -> bool) -> u32 {
        let mut pushed = 0;
        while let Some(entry) = self.next() {
            if !push(&entry) {
                break;
            }
            self.at = entry.next;
            if self.dots.pop_front().is_none() {
                self.entries.pop_front();
            }
            pushed += 1;
        }
        pushed
    }

    fn next(&self) -> Option<Entry> {
        if let Some(dot) = self.dots.front() {
            return Some(dot.clone());
        }
        let entry = self.entries.front()?;
        Some(Entry {
            inode: entry.inode,
            kind: entry.kind,
            name: entry.name.as_bytes().into(),
            next: AFTER_DOTS + entry.cookie,
            attr: entry.attr.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ozone_types::FileName;

    use super::*;

    const DIR: InodeId = InodeId(10);

    fn entry(cookie: u64) -> DirEntry {
        DirEntry {
            name: FileName::new(format!("f{cookie}").as_bytes()).unwrap(),
            inode: InodeId(100 + cookie),
            kind: FileKind::Regular,
            cookie,
            attr: None,
        }
    }

    fn batch(offset: u64, cookies: &[u64]) -> Batch {
        let entries = cookies.iter().map(|&cookie| entry(cookie)).collect();
        Batch::new(DIR, offset, page(entries, true, 0), false)
    }

    fn page(entries: Vec<DirEntry>, end: bool, last_cookie: u64) -> DirPage {
        DirPage { entries, end, parent: InodeId(9), last_cookie }
    }

    /// Fills with room for `room` entries.
    fn list(batch: &mut Batch, room: usize) -> Vec<(String, u64)> {
        let mut lines = Vec::new();
        batch.fill(|entry| {
            if lines.len() == room {
                return false;
            }
            lines.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.inode.0));
            true
        });
        lines
    }

    #[test]
    fn dots_come_first_and_once() {
        let mut all = batch(0, &[1, 4]);
        let lines = list(&mut all, 9);
        let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".", "..", "f1", "f4"]);
        assert_eq!((lines[0].1, lines[1].1), (10, 9));
        assert_eq!(all.at, 6);
        assert_eq!(list(&mut batch(1, &[]), 9), [("..".to_owned(), 9)]);
        assert!(list(&mut batch(2, &[]), 9).is_empty());
    }

    #[test]
    fn a_listing_ends_where_the_directory_ended_when_it_began() {
        let listing = Listing::default();
        let bounded = |from, cookies: &[u64], end, last| {
            let mut page = page(cookies.iter().map(|&c| entry(c)).collect(), end, last);
            listing.bound(from, &mut page);
            (page.entries.iter().map(|e| e.cookie).collect::<Vec<_>>(), page.end)
        };
        // Gone on with by somebody who has not begun it.
        assert_eq!(bounded(4, &[5, 8], false, 8), (vec![5, 8], false));
        assert_eq!(bounded(0, &[1, 4], false, 7), (vec![1, 4], false));
        assert_eq!(bounded(4, &[6, 7], false, 9), (vec![6, 7], false));
        assert_eq!(bounded(4, &[6, 8, 9], false, 9), (vec![6], true));
        assert_eq!(bounded(7, &[8, 9], true, 9), (vec![], true));
        // From the beginning again.
        assert_eq!(bounded(0, &[6, 8, 9], true, 9), (vec![6, 8, 9], true));
    }

    #[test]
    fn every_stop_goes_on_where_it_stopped() {
        for room in 1..6 {
            let (mut again, mut kept) = (Vec::new(), Vec::new());
            let (mut at, mut ahead) = (0, batch(0, &[3, 5, 8]));
            loop {
                // Both ways to go on: from what was kept, and by asking anew at the offset.
                let cookies: Vec<u64> =
                    [3, 5, 8].into_iter().filter(|c| c + 2 > at.max(2)).collect();
                let mut anew = batch(at, &cookies);
                let lines = list(&mut anew, room);
                assert_eq!(lines, list(&mut ahead, room));
                assert_eq!(anew.at, ahead.at);
                if lines.is_empty() {
                    break;
                }
                kept.extend(lines.iter().map(|(_, inode)| *inode));
                again.extend(lines.into_iter().map(|(name, _)| name));
                at = anew.at;
            }
            assert_eq!(again, [".", "..", "f3", "f5", "f8"], "room for {room}");
            assert_eq!(kept, [10, 9, 103, 105, 108]);
        }
    }
}
