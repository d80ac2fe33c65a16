//! Sessions at work: [`table`] knows who lives, this registry holds their streams, [`stream`] speaks
//! with one client.

mod stream;
mod table;

use std::collections::HashMap;
use std::time::Duration;

use ozone_proto::metad as wire;
use ozone_types::SessionId;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub use stream::serve;
pub use table::{Owner, SessionTable, SessionView, StreamId};

/// Messages that may wait for a client to read them. A client that lets it fill up loses its stream;
/// what it has missed is sent again on the next one.
pub const DOWN_QUEUE: usize = 1024;

/// What goes down a session's stream.
pub type Down = Result<wire::SessionDown, Status>;

/// The sessions of one term.
#[derive(Debug)]
pub struct Sessions {
    /// Lock order: a leaf.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: SessionTable,
    streams: HashMap<SessionId, Stream>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    down: mpsc::Sender<Down>,
    /// Stops the task that reads from the client.
    stop: CancellationToken,
}

/// A session's new stream.
#[derive(Debug)]
pub struct Attached {
    pub stream: StreamId,
    /// The stream was replaced, or the session ended.
    pub stop: CancellationToken,
}

impl Sessions {
    pub fn new(table: SessionTable) -> Self {
        Sessions { state: Mutex::new(State { table, streams: HashMap::new() }) }
    }

    /// Asks the table, or tells it something.
    pub fn with<T>(&self, f: impl FnOnce(&mut SessionTable) -> T) -> T {
        f(&mut self.state.lock().table)
    }

    /// Whether requests of this session are executed.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.with(|table| table.is_live(id))
    }

    pub fn in_grace(&self) -> bool {
        self.with(|table| table.in_grace())
    }

    pub fn connected_since(&self, id: SessionId, limit: Duration) -> bool {
        self.with(|table| table.connected_since(id, limit))
    }

    /// From here on `down` is the session's stream, and begins with Welcome; an older one is closed.
    /// `None`: it has ended.
    pub fn attach(
        &self,
        id: SessionId,
        down: mpsc::Sender<Down>,
        now: Duration,
        lease_ms: u32,
    ) -> Option<Attached> {
        let mut state = self.state.lock();
        let (stream, reclaim) = state.table.attach(id, now)?;
        let stop = CancellationToken::new();
        // Nothing was sent on it yet, so there is room, unless the client has gone.
        let _ = down.try_send(Ok(stream::welcome(id, lease_ms, reclaim)));
        let new = Stream { id: stream, down, stop: stop.clone() };
        if let Some(old) = state.streams.insert(id, new) {
            old.stop.cancel();
        }
        Some(Attached { stream, stop })
    }

    /// The stream has ended.
    pub fn detach(&self, id: SessionId, stream: StreamId) {
        let mut state = self.state.lock();
        state.table.detach(id, stream);
        if state.streams.get(&id).is_some_and(|s| s.id == stream) {
            state.streams.remove(&id);
        }
    }

    /// Sends if the session has a stream that takes it.
    pub fn send(&self, id: SessionId, message: wire::SessionDown) {
        let mut state = self.state.lock();
        let Some(stream) = state.streams.get(&id) else { return };
        if stream.down.try_send(Ok(message)).is_err() {
            stream.stop.cancel();
            let stream = stream.id;
            state.streams.remove(&id);
            state.table.detach(id, stream);
        }
    }

    /// The session's end has committed: it is forgotten, and its stream told.
    pub fn ended(&self, id: SessionId, why: &str) {
        let mut state = self.state.lock();
        state.table.ended(id);
        if let Some(stream) = state.streams.remove(&id) {
            for message in stream::farewell(why) {
                // A client that does not read learns it with its next request.
                let _ = stream.down.try_send(message);
            }
            stream.stop.cancel();
        }
    }
}
