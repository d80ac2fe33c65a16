//! Changes that go behind a file's data: of its attributes, of its names, of ranges of it.
//!
//! A change is a step of the file's chain. Once it is committed, what is known here of the file's
//! bytes follows.

use std::ops::Range;
use std::sync::Arc;

use ozone_proto::metad::{Entry, EntryReply, entry::Op};
use ozone_types::{ErrorCode, FsError, FsResult, InodeId};
use prost::Message;
use tokio::sync::oneshot;

use super::pipeline::{What, advance};
use super::{File, State};
use crate::core::Core;

/// A change that may only be made after the data before it.
pub struct Change {
    entry: Entry,
    effect: Effect,
    done: oneshot::Sender<FsResult<EntryReply>>,
}

/// What a change does to the file's bytes.
enum Effect {
    None,
    /// The size is set; everything behind it is gone.
    Truncate(u64),
    /// A range becomes a hole, and the size at least `size`.
    Punch {
        range: Range<u64>,
        size: u64,
    },
    /// As many bytes as the reply says come from elsewhere, from here on.
    Clone {
        to: u64,
    },
    /// Bytes that were stored at once come here.
    Write(Range<u64>),
    /// So many bytes come where the reply says the end was.
    Append {
        length: u64,
    },
}

impl Effect {
    fn of(op: Option<&Op>) -> Effect {
        match op {
            Some(Op::Setattr(set)) => set.size.map_or(Effect::None, Effect::Truncate),
            Some(Op::Punch(op)) => Effect::Punch {
                range: op.offset..op.offset.saturating_add(op.length),
                size: op.size,
            },
            Some(Op::Clone(op)) => Effect::Clone { to: op.to_offset },
            Some(Op::Write(op)) if op.append => Effect::Append { length: op.size },
            Some(Op::Write(op)) => {
                Effect::Write(op.extents.first().map_or(op.size, |first| first.offset)..op.size)
            }
            _ => Effect::None,
        }
    }
}

impl Change {
    fn new(entry: Entry) -> (Change, oneshot::Receiver<FsResult<EntryReply>>) {
        let (done, answer) = oneshot::channel();
        let effect = Effect::of(entry.op.as_ref());
        (Change { entry, effect, done }, answer)
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    pub fn appends(&self) -> bool {
        matches!(self.effect, Effect::Append { .. })
    }

    /// Bytes of its entry in a batch.
    pub fn wire(&self) -> usize {
        self.entry.encoded_len()
    }

    /// It is committed, and everything before it is; `cached`: the committed map is known here.
    pub fn made(self, inode: InodeId, state: &mut State, cached: bool, reply: EntryReply) {
        if let Some(attr) = reply.attr.as_ref().filter(|attr| attr.inode == inode.0) {
            state.version = state.version.max(attr.version);
        }
        match self.effect {
            Effect::None => {}
            Effect::Truncate(size) => {
                if cached {
                    state.extents.truncate(size);
                }
                // What was written behind it is not committed yet.
                let end = size.max(state.dirty_end());
                state.size = state.size.map(|_| end);
            }
            Effect::Punch { range, size } => {
                if cached && !range.is_empty() {
                    state.extents.learn(range, &[]);
                }
                state.size = state.size.map(|known| known.max(size));
            }
            Effect::Clone { to } => state.came(to..to.saturating_add(reply.length)),
            Effect::Write(range) => {
                state.came(range);
                if let (Some(times), Some(at)) = (&mut state.times, self.entry.time) {
                    times.changed = times.changed.max(at.into());
                }
            }
            Effect::Append { length } => {
                state.came(reply.length..reply.length.saturating_add(length));
            }
        }
        // Its caller may have been killed.
        let _ = self.done.send(Ok(reply));
    }

    /// It was not made.
    pub fn failed(self, error: FsError) {
        // Its caller may have been killed.
        let _ = self.done.send(Err(error));
    }
}

impl State {
    /// Bytes that are not known here were committed in `range`.
    fn came(&mut self, range: Range<u64>) {
        self.extents.unlearn(&range);
        if !range.is_empty() {
            self.size = self.size.map(|known| known.max(range.end));
        }
    }
}

/// Makes `entry` behind all data that was written to the file so far; directly when nothing is
/// dirty. SESSION_ENDED means that it was not made.
pub async fn make(core: &Arc<Core>, file: &Arc<File>, entry: Entry) -> FsResult<EntryReply> {
    let (change, answer) = Change::new(entry);
    {
        let mut state = file.state.lock();
        state.seal();
        state.push(What::Change(change));
        state.urgent = state.last_step;
    }
    advance(core, file);
    answer.await.unwrap_or_else(|_| Err(ErrorCode::SessionEnded.into()))
}
