//! Recently read parts of blocks. A block's bytes never change, so nothing in here can be stale; it is
//! bounded by what dirty data leaves of the memory.
//!
//! What is read and kept as one is a *unit*: an aligned part of a block of one of three sizes. A stream
//! reads the largest; a read at a random place the smallest that it lies in, and however often it comes
//! back, nothing more: where a file is larger than the memory, every byte that nobody asked for drives
//! one out that somebody did.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use ozone_types::{BlockId, ErrorCode, FsResult};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::reader::{self, Want};
use crate::core::Core;

/// Bytes of a chunk. Small files that were packed side by side come together in one.
pub const CHUNK: u64 = 1024 * 1024;
/// The sizes of units, in bytes. Each is a multiple of the one before.
const UNITS: [u64; 3] = [32 * 1024, 256 * 1024, CHUNK];

/// A unit: `len` bytes of a block from `start` on, or as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    block: BlockId,
    start: u64,
    len: u64,
}

impl Key {
    /// The units that a range lies in, smallest first. It must not cross a chunk's end.
    fn around(
        block: BlockId,
        offset: u64,
        len: u64,
    ) -> impl DoubleEndedIterator<Item = Key> + Clone {
        let aligned = move |unit: u64| Key { block, start: offset / unit * unit, len: unit };
        UNITS.into_iter().map(aligned).filter(move |key| offset + len <= key.start + key.len)
    }
}

/// Bytes of a block from `start` on.
#[derive(Clone, Debug)]
struct Held {
    start: u64,
    bytes: Bytes,
}

impl Held {
    fn get(&self, offset: u64, len: u64) -> Option<Bytes> {
        let from = offset.checked_sub(self.start)? as usize;
        let to = from.checked_add(len as usize)?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

type Answer = Option<FsResult<Held>>;

#[derive(Default)]
pub struct Cache {
    /// Lock order: a leaf.
    state: Mutex<State>,
}

struct State {
    held: LruCache<Key, Held>,
    bytes: u64,
    /// Units that are being read, and where the answer comes.
    flights: HashMap<Key, Flight>,
    flying: u64,
}

type Flight = watch::Receiver<Answer>;

impl Default for State {
    fn default() -> Self {
        State { held: LruCache::unbounded(), bytes: 0, flights: HashMap::new(), flying: 0 }
    }
}

impl Cache {
    /// Bytes held and on their way.
    pub fn bytes(&self) -> u64 {
        let state = self.state.lock();
        state.bytes + state.flying
    }

    /// Drops the oldest until at most `max` bytes are held.
    pub fn trim(&self, max: u64) {
        self.state.lock().trim(max);
    }
}

/// A read under way. One that is given up with its client is over as well: others begin another.
struct Flying {
    core: Arc<Core>,
    key: Key,
    /// Dropped after the flight is forgotten.
    tell: watch::Sender<Answer>,
}

impl Flying {
    fn land(self, answer: FsResult<Held>) {
        let mut state = self.core.cache.state.lock();
        self.over(&mut state);
        if let Ok(held) = &answer {
            state.bytes += held.bytes.len() as u64;
            if let Some(old) = state.held.put(self.key, held.clone()) {
                state.bytes -= old.bytes.len() as u64;
            }
        }
        state.trim(self.core.budget.cache_max());
        drop(state);
        self.tell.send_replace(Some(answer));
    }

    fn over(&self, state: &mut State) {
        let own = |flight: &Flight| flight.same_channel(&self.tell.subscribe());
        if state.flights.get(&self.key).is_some_and(own) {
            state.flights.remove(&self.key);
            state.flying -= self.key.len;
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        let core = self.core.clone();
        self.over(&mut core.cache.state.lock());
    }
}

impl State {
    /// A range, if a unit that is held has it.
    fn find(&mut self, block: BlockId, offset: u64, len: u64) -> Option<Bytes> {
        Key::around(block, offset, len).find_map(|key| self.held.get(&key)?.get(offset, len))
    }

    /// The smallest unit around a range that is being read.
    fn flight(&self, block: BlockId, offset: u64, len: u64) -> Option<Flight> {
        Key::around(block, offset, len).find_map(|key| self.flights.get(&key).cloned())
    }

    fn trim(&mut self, max: u64) {
        while self.bytes + self.flying > max {
            match self.held.pop_lru() {
                Some((_, old)) => self.bytes -= old.bytes.len() as u64,
                None => return,
            }
        }
    }
}

/// How a range is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// With the whole chunk: a stream, or a small file among its neighbours.
    Chunk,
    /// At a random place: with little around it.
    Spot,
}

/// `len` bytes of a block, in pieces. Errors are those of [`reader::read`].
pub async fn read(
    core: &Arc<Core>,
    block: BlockId,
    offset: u64,
    len: u64,
    access: Access,
) -> FsResult<Vec<Bytes>> {
    let mut pieces = Vec::with_capacity(1);
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let part = end.min(chunk_end(at)) - at;
        pieces.push(piece(core, block, at, part, access).await?);
        at += part;
    }
    Ok(pieces)
}

fn chunk_end(offset: u64) -> u64 {
    (offset / CHUNK + 1) * CHUNK
}

/// Begins to read the chunks of a range that are not there, unless memory is short.
pub fn prefetch(core: &Arc<Core>, block: BlockId, offset: u64, len: u64) {
    let max = core.budget.cache_max();
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let part = end.min(chunk_end(at)) - at;
        {
            let mut state = core.cache.state.lock();
            if state.flying + CHUNK > max / 2 {
                return;
            }
            if state.find(block, at, part).is_some() || state.flight(block, at, part).is_some() {
                at += part;
                continue;
            }
        }
        take_off(
            core,
            Want { block, offset: at, len: part as u32, need: part as u32 },
            Access::Chunk,
        );
        at += part;
    }
}

/// A range within a chunk.
async fn piece(
    core: &Arc<Core>,
    block: BlockId,
    offset: u64,
    len: u64,
    access: Access,
) -> FsResult<Bytes> {
    let want = Want { block, offset, len: len as u32, need: len as u32 };
    loop {
        let flight = {
            let mut state = core.cache.state.lock();
            if let Some(bytes) = state.find(block, offset, len) {
                core.metrics.cache_hits.inc();
                return Ok(bytes);
            }
            state.flight(block, offset, len)
        };
        let flight = flight.unwrap_or_else(|| {
            core.metrics.cache_misses.inc();
            take_off(core, want, access)
        });
        match land(flight).await {
            Some(held) => {
                if let Some(bytes) = held?.get(offset, len) {
                    return Ok(bytes);
                }
                // It was begun when the block was shorter than this reader needs it.
                let bytes = reader::read(core, want).await?;
                return Ok(bytes.slice(..len as usize));
            }
            None if core.is_stopped() => return Err(ErrorCode::ShuttingDown.into()),
            None => {}
        }
    }
}

/// `None` if it was given up.
async fn land(mut flight: Flight) -> Answer {
    match flight.wait_for(Option::is_some).await {
        Ok(answer) => answer.clone(),
        Err(_) => None,
    }
}

/// Starts a read of a unit around `want`, or does all of it where this thread may wait. It goes on when
/// its waiters give up.
fn take_off(core: &Arc<Core>, want: Want, access: Access) -> Flight {
    let max = core.budget.cache_max();
    let mut units = Key::around(want.block, want.offset, want.len.into());
    let (tell, answer) = watch::channel(None);
    let key = {
        let mut state = core.cache.state.lock();
        let short = state.flying + CHUNK > max / 2;
        let unit = if short || access == Access::Spot { units.next() } else { units.next_back() };
        // The chunk is one, since the range does not cross its end.
        let len = want.len.into();
        let key = unit.unwrap_or(Key { block: want.block, start: want.offset, len });
        if let Some(other) = state.flights.get(&key) {
            return other.clone();
        }
        state.flights.insert(key, answer.clone());
        state.flying += key.len;
        state.trim(max);
        key
    };
    let flying = Flying { core: core.clone(), key, tell };
    let need = (want.offset - key.start) as u32 + want.need;
    let whole = Want { block: key.block, offset: key.start, len: key.len as u32, need };
    let held = move |bytes| Held { start: key.start, bytes };
    // A larger unit takes longer than a moment, and is not waited for alone.
    if access == Access::Spot
        && let Some(bytes) = reader::read_here(core, whole)
    {
        flying.land(Ok(held(bytes)));
        return answer;
    }
    core.spawn(async move {
        let answer = reader::read(&flying.core, whole).await.map(held);
        flying.land(answer);
    });
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_lie_around_a_range() {
        let block = BlockId::default();
        let around = |offset, len| {
            let keys = Key::around(block, offset, len);
            keys.map(|key| (key.start >> 10, key.len >> 10)).collect::<Vec<_>>()
        };
        assert_eq!(around(0, 4096), [(0, 32), (0, 256), (0, 1024)]);
        assert_eq!(around(3 << 20 | 70 << 10, 4096), [(3136, 32), (3072, 256), (3072, 1024)]);
        assert_eq!(around((32 << 10) - 1, 2), [(0, 256), (0, 1024)]);
        assert_eq!(around(0, 128 << 10), [(0, 256), (0, 1024)]);
        assert_eq!(around((512 << 10) - 1, 2), [(0, 1024)]);
        assert_eq!(around(CHUNK, CHUNK), [(1024, 1024)]);
    }
}
