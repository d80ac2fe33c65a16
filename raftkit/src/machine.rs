//! openraft's state machine: entries of the log become changes of the tables.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::alias;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use tokio::sync::{Notify, watch};

use crate::codec::{decode_stored, encode_stored};
use crate::config::StateMachine;
use crate::store::{Base, Incoming, Mark, Store};
use crate::types::{
    Config, Entry, LogId, Payload, SnapshotMeta, StoredMembership, log_id, parts, term_of,
};

/// What a snapshot is, at either end.
#[derive(Debug)]
pub enum SnapshotData {
    /// Sender: a checkpoint, read while the state machine goes on.
    Checkpoint(Arc<Base>),
    /// Receiver: a file beside the tables.
    Received(Incoming),
}

/// What `apply` tells those who look after the group.
#[derive(Debug)]
pub struct Signals {
    /// Term of the last entry applied.
    pub applied_term: watch::Sender<u64>,
    /// The overlay has reached `checkpoint_bytes`.
    pub checkpoint_due: Notify,
    pub checkpoint_bytes: u64,
}

pub struct Machine<S> {
    store: Arc<Store>,
    machine: Arc<S>,
    signals: Arc<Signals>,
    /// As the mark carries it; changes with each membership entry.
    membership: Arc<[u8]>,
}

impl<S: StateMachine> Machine<S> {
    pub fn new(store: Arc<Store>, machine: Arc<S>, signals: Arc<Signals>) -> Self {
        let membership = store.mark().membership;
        Machine { store, machine, signals, membership }
    }

    fn apply_one(&mut self, entry: &Entry) -> io::Result<Vec<u8>> {
        let id = Some(parts(&entry.log_id));
        let answer = match &entry.payload {
            Payload::Blank => self.store.apply(Some(self.mark(id)), |_| Ok(Vec::new())),
            Payload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.membership = encode_stored(&stored).into();
                self.store.apply(Some(self.mark(id)), |_| Ok(Vec::new()))
            }
            Payload::Normal(command) => {
                let body = || {
                    self.store.apply(Some(self.mark(id)), |txn| self.machine.apply(txn, &command.0))
                };
                // A panic would leave openraft waiting for this worker for ever. Nothing of the
                // command has reached the tables.
                catch_unwind(AssertUnwindSafe(body))
                    .unwrap_or_else(|_| Err(io::Error::other("the state machine panicked")))
            }
        };
        answer.map_err(|error| {
            tracing::error!(%error, entry = %entry.log_id, "cannot apply; this node stops");
            error
        })
    }

    fn mark(&self, applied: Option<(u64, u64)>) -> Mark {
        Mark { applied, membership: self.membership.clone() }
    }

    fn announce(&self, last: &LogId) {
        let term = term_of(last);
        self.signals.applied_term.send_if_modified(|seen| {
            let modified = *seen != term;
            *seen = term;
            modified
        });
        if self.store.active_bytes() >= self.signals.checkpoint_bytes {
            self.signals.checkpoint_due.notify_one();
        }
    }
}

impl<S: StateMachine> RaftStateMachine<Config> for Machine<S> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let mark = self.store.mark();
        Ok((
            mark.applied.map(|(term, index)| log_id(term, index)),
            decode_stored(&mark.membership)?,
        ))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Config>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            if self.store.full() {
                self.signals.checkpoint_due.notify_one();
                self.store.room().await?;
            }
            let answer = self.apply_one(&entry)?;
            self.announce(&entry.log_id);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let store = self.store.clone();
        let install = move || {
            let incoming = match snapshot {
                SnapshotData::Received(incoming) => incoming,
                SnapshotData::Checkpoint(base) => store.copy(&base)?,
            };
            store.install(&incoming).map(|()| incoming.mark().clone())
        };
        let mark = tokio::task::spawn_blocking(install).await??;
        if meta_of(&mark)? != *meta {
            return Err(io::Error::other("the snapshot is not the one that was announced"));
        }
        self.membership = mark.membership;
        if let Some(last) = &meta.last_log_id {
            self.announce(last);
        }
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<alias::SnapshotOf<Config, SnapshotData>>> {
        let base = self.store.base();
        if base.mark().applied.is_none() {
            return Ok(None);
        }
        snapshot_of(base).map(Some)
    }
}

/// A snapshot is a checkpoint, so building one is making one.
pub struct Builder {
    store: Arc<Store>,
}

impl RaftSnapshotBuilder<Config> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<alias::SnapshotOf<Config, SnapshotData>> {
        let store = self.store.clone();
        snapshot_of(tokio::task::spawn_blocking(move || store.checkpoint()).await??)
    }
}

fn snapshot_of(base: Arc<Base>) -> io::Result<alias::SnapshotOf<Config, SnapshotData>> {
    let meta = meta_of(base.mark())?;
    Ok(Snapshot { meta, snapshot: SnapshotData::Checkpoint(base) })
}

pub fn meta_of(mark: &Mark) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: mark.applied.map(|(term, index)| log_id(term, index)),
        last_membership: decode_stored(&mark.membership)?,
    })
}
