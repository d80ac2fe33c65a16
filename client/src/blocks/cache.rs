//! Recently read pieces of blocks, by (block, chunk). A block's bytes never change, so nothing in
//! here can be stale; it is bounded by what dirty data leaves of the memory.

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
/// A read at a random place brings at first only so much around it.
const SPOT: u64 = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    block: BlockId,
    chunk: u64,
}

/// Bytes of a block from `start` on.
#[derive(Clone)]
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
    /// Reads under way: the range asked for, and where the answer comes.
    flights: HashMap<Key, Flight>,
    flying: u64,
}

#[derive(Clone)]
struct Flight {
    start: u64,
    end: u64,
    answer: watch::Receiver<Answer>,
}

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
    bytes: u64,
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
        if state.flights.get(&self.key).is_some_and(|flight| flight.is(&self.tell)) {
            state.flights.remove(&self.key);
            state.flying -= self.bytes;
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        let core = self.core.clone();
        self.over(&mut core.cache.state.lock());
    }
}

impl Flight {
    fn is(&self, teller: &watch::Sender<Answer>) -> bool {
        self.answer.same_channel(&teller.subscribe())
    }
}

impl State {
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
    /// At a random place.
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
        let chunk = at / CHUNK;
        let part = end.min((chunk + 1) * CHUNK) - at;
        pieces.push(piece(core, Key { block, chunk }, at, part, access).await?);
        at += part;
    }
    Ok(pieces)
}

/// Begins to read the chunks of a range that are not there, unless memory is short.
pub fn prefetch(core: &Arc<Core>, block: BlockId, offset: u64, len: u64) {
    let max = core.budget.cache_max();
    let mut at = offset;
    while at < offset + len {
        let chunk = at / CHUNK;
        let part = (offset + len).min((chunk + 1) * CHUNK) - at;
        let key = Key { block, chunk };
        {
            let state = core.cache.state.lock();
            let full = state.flying + CHUNK > max / 2;
            let there = state.held.peek(&key).is_some_and(|h| h.get(at, part).is_some());
            if full {
                return;
            }
            if there || state.flights.contains_key(&key) {
                at += part;
                continue;
            }
        }
        let want = Want { block, offset: at, len: part as u32, need: part as u32 };
        take_off(core, key, want, Access::Chunk);
        at += part;
    }
}

async fn piece(
    core: &Arc<Core>,
    key: Key,
    offset: u64,
    len: u64,
    access: Access,
) -> FsResult<Bytes> {
    let want = Want { block: key.block, offset, len: len as u32, need: len as u32 };
    let mut access = access;
    loop {
        let flight = {
            let mut state = core.cache.state.lock();
            if let Some(held) = state.held.get(&key) {
                if let Some(bytes) = held.get(offset, len) {
                    core.metrics.cache_hits.inc();
                    return Ok(bytes);
                }
                // The chunk is used again: it is worth having whole.
                access = Access::Chunk;
            }
            state.flights.get(&key).cloned()
        };
        let covered = |f: &Flight| f.start <= offset && offset + len <= f.end;
        match flight {
            Some(flight) if !covered(&flight) => {
                // Another part of the chunk is on its way: wait, then look again.
                let mut answer = flight.answer;
                let _ = answer.wait_for(Option::is_some).await;
                access = Access::Chunk;
            }
            flight => {
                let flight = match flight {
                    Some(flight) => flight,
                    None => {
                        core.metrics.cache_misses.inc();
                        take_off(core, key, want, access)
                    }
                };
                let Some(held) = land(flight).await else {
                    if core.is_stopped() {
                        return Err(ErrorCode::ShuttingDown.into());
                    }
                    continue;
                };
                let held = held?;
                if let Some(bytes) = held.get(offset, len) {
                    return Ok(bytes);
                }
                // It was begun when the block was shorter than this reader needs it.
                let bytes = reader::read(core, want).await?;
                return Ok(bytes.slice(..len as usize));
            }
        }
    }
}

/// `None` if it was given up.
async fn land(mut flight: Flight) -> Answer {
    match flight.answer.wait_for(Option::is_some).await {
        Ok(answer) => answer.clone(),
        Err(_) => None,
    }
}

/// Starts a read of the chunk, or of a part around `want`. It goes on when its waiters give up.
fn take_off(core: &Arc<Core>, key: Key, want: Want, access: Access) -> Flight {
    let max = core.budget.cache_max();
    let short = core.cache.state.lock().flying + CHUNK > max / 2;
    let access = if short { Access::Spot } else { access };
    let (first, last) = (key.chunk * CHUNK, (key.chunk + 1) * CHUNK);
    let want_end = want.offset + u64::from(want.len);
    let (start, end) = match access {
        Access::Chunk => (first, last),
        Access::Spot => (
            (want.offset / SPOT * SPOT).max(first),
            want_end.div_ceil(SPOT).saturating_mul(SPOT).min(last),
        ),
    };
    let (tell, answer) = watch::channel(None);
    let flight = Flight { start, end, answer };
    {
        let mut state = core.cache.state.lock();
        if let Some(other) = state.flights.get(&key) {
            return other.clone();
        }
        state.flights.insert(key, flight.clone());
        state.flying += end - start;
        state.trim(max);
    }
    let flying = Flying { core: core.clone(), key, bytes: end - start, tell };
    core.spawn(async move {
        let core = flying.core.clone();
        let need = (want.offset - start) as u32 + want.need;
        let range = Want { block: key.block, offset: start, len: (end - start) as u32, need };
        let answer = reader::read(&core, range).await.map(|bytes| Held { start, bytes });
        flying.land(answer);
    });
    flight
}
