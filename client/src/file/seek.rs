//! SEEK_DATA and SEEK_HOLE: where the committed map has bytes, and where it has none.

use std::sync::Arc;

use ozone_proto::metad::LeaseKind;
use ozone_types::{ErrorCode, FsResult};

use super::extents::Extent;
use super::handle::OpenFile;
use super::open::pin;
use super::pipeline::store;
use super::read::{PAGE, fetch_page};
use super::{File, State};
use crate::api::Seek;
use crate::core::Core;

/// Holes are told in whole blocks of so many bytes, as by other filesystems: a block with one byte of
/// data is data. Programs expect no finer answer, and some fail on one.
pub const GRAIN: u64 = 4096;

/// The first byte from `offset` on that is data, or in a hole; the file's end is a hole. What is
/// dirty here is stored before. Errors: NO_SUCH_OFFSET at and behind the end, or where no data
/// follows; what became of the dirty data.
pub async fn seek(core: &Arc<Core>, open: &OpenFile, offset: u64, what: Seek) -> FsResult<u64> {
    let file = &open.file;
    pin(core, file, false, false).await?;
    store(core, file).await?;
    core.session.wait_valid().await;
    open.check()?;
    if let Some(answer) = look(&file.state.lock(), offset, what) {
        return answer;
    }
    ask(core, file, offset, what).await
}

/// A search through a map, from its beginning to its end.
struct Search {
    what: Seek,
    /// As `GRAIN`.
    grain: u64,
    /// Up to here there is only the other.
    at: u64,
}

impl Search {
    /// Goes on through `extents`, which are all there are up to `end`. The place, once it is found.
    fn through<'a>(
        &mut self,
        extents: impl IntoIterator<Item = &'a Extent>,
        end: u64,
    ) -> Option<u64> {
        for extent in extents {
            let start = extent.offset / self.grain * self.grain;
            let stop = extent.end().next_multiple_of(self.grain);
            match self.what {
                _ if stop <= self.at => {}
                Seek::Data => return Some(start.max(self.at)),
                Seek::Hole if start > self.at => return Some(self.at),
                Seek::Hole => self.at = stop,
            }
        }
        if self.what == Seek::Hole && self.at < end {
            return Some(self.at);
        }
        self.at = self.at.max(end);
        None
    }
}

/// What a search that came to `found` answers for a file of this size.
fn answer(what: Seek, found: Option<u64>, size: u64) -> FsResult<u64> {
    match (what, found) {
        (Seek::Data, Some(at)) if at < size => Ok(at),
        (Seek::Data, _) => Err(ErrorCode::NoSuchOffset.into()),
        (Seek::Hole, at) => Ok(at.unwrap_or(size).min(size)),
    }
}

/// The answer from what is known of the committed map under a lease, if that is enough.
fn look(state: &State, offset: u64, what: Seek) -> Option<FsResult<u64>> {
    let size = state.size.filter(|_| state.lease_kind() != LeaseKind::LeaseNone)?;
    if offset >= size {
        return Some(Err(ErrorCode::NoSuchOffset.into()));
    }
    let range = offset / GRAIN * GRAIN..size;
    // Data that has been written since has not found its place yet.
    if state.is_dirty() || !state.extents.knows(&range) {
        return None;
    }
    let mut search = Search { what, grain: GRAIN, at: offset };
    let found = search.through(state.extents.overlapping(&range), size);
    Some(answer(what, found, size))
}

/// Searches metad's map, page by page.
async fn ask(core: &Arc<Core>, file: &File, offset: u64, what: Seek) -> FsResult<u64> {
    let max = match what {
        Seek::Data => 1,
        // The data may have many extents.
        Seek::Hole => PAGE,
    };
    let mut search = Search { what, grain: GRAIN, at: offset };
    loop {
        let at = search.at;
        let page = fetch_page(core, file, at / GRAIN * GRAIN, max).await?;
        let size = page.attr.size;
        if offset >= size {
            return Err(ErrorCode::NoSuchOffset.into());
        }
        let found = search.through(&page.extents, page.known.end);
        if found.is_some() || search.at >= size || search.at == at {
            return answer(what, found, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_types::BlockId;

    fn map(runs: &[(u64, u64)]) -> Vec<Extent> {
        let extent = |&(offset, len): &(u64, u64)| {
            let block = BlockId::default();
            Extent { offset, len, block, block_offset: offset * 7 }
        };
        runs.iter().map(extent).collect()
    }

    #[test]
    fn data_and_holes_of_any_map_in_any_pages() {
        let size = 60;
        for runs in [
            &[][..],
            &[(0, 60)],
            &[(0, 10), (10, 5), (20, 10)],
            &[(5, 5), (10, 20), (30, 1), (40, 20)],
            &[(59, 1)],
        ] {
            let extents = map(runs);
            let stored = |at: u64| extents.iter().any(|e| e.offset <= at && at < e.end());
            let grains = [1, 4, 16].into_iter();
            let cases = grains.flat_map(|grain| (0..size).map(move |at| (grain, at)));
            let cases = cases.flat_map(|(grain, at)| (1..4).map(move |pages| (grain, at, pages)));
            for (grain, offset, pages) in cases {
                let block = |at: u64| at / grain * grain..at / grain * grain + grain;
                let is_data = |at: u64| block(at).any(stored);
                for what in [Seek::Data, Seek::Hole] {
                    let mut search = Search { what, grain, at: offset };
                    let mut found = None;
                    let mut chunks = extents.chunks(pages).peekable();
                    while let (None, Some(page)) = (found, chunks.next()) {
                        let last = chunks.peek().is_none();
                        found = search.through(
                            page,
                            if last { u64::MAX } else { page[page.len() - 1].end() },
                        );
                    }
                    if extents.is_empty() {
                        found = search.through(&[], u64::MAX);
                    }
                    let mut places = offset..size;
                    let expected = match what {
                        Seek::Data => places.find(|at| is_data(*at)),
                        Seek::Hole => Some(places.find(|at| !is_data(*at)).unwrap_or(size)),
                    };
                    assert_eq!(
                        answer(what, found, size).ok(),
                        expected,
                        "{what:?} {offset} {runs:?} in blocks of {grain}"
                    );
                }
            }
        }
    }
}
