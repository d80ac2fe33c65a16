//! The task that keeps the session: connects, renews, re-claims, dispatches recalls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad::*;
use ozone_types::limits::NAMESPACE_INODE;
use ozone_types::{ErrorCode, FsError};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;

use super::{Live, SessionLock, alone};
use crate::core::Core;
use crate::locks::Attached;
use crate::metad::SessionStream;

pub(super) const PROTOCOL_VERSION: u32 = 1;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// metad answers Hello at once; when it does not, another one is tried.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// Opens per Reclaim message.
const RECLAIM_PAGE: usize = 1000;

/// Why a stream is over.
enum Over {
    /// Connect again with the same session.
    Broken(FsError),
    /// metad knows the session no more.
    Ended(String),
    /// This client has said goodbye.
    Goodbye,
}

/// One session at a time, for as long as the client lives.
struct Keeper {
    core: Arc<Core>,
    id: u64,
    incarnation: u64,
    lock: Option<SessionLock>,
    /// The task that lets a new session begin its work.
    admission: Option<AbortHandle>,
}

/// Keeps a session until goodbye.
pub async fn run(core: Arc<Core>) {
    let mut keeper =
        Keeper { core: core.clone(), id: 0, incarnation: 0, lock: None, admission: None };
    let late = async {
        core.session.goodbye.cancelled().await;
        tokio::time::sleep(GOODBYE_TIMEOUT).await;
    };
    tokio::select! {
        () = keeper.keep() => {}
        // Without goodbye the session ends with its lease.
        () = late => tracing::warn!("metad did not hear our goodbye"),
    }
    core.session.set_live(None);
}

impl Keeper {
    /// One stream after the other.
    async fn keep(&mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let (over, greeted) = self.one_stream().await;
            if greeted {
                backoff = BACKOFF_FIRST;
            }
            match over {
                Over::Goodbye => {
                    if let Some(lock) = self.lock.take() {
                        lock.remove();
                    }
                    return;
                }
                Over::Ended(why) => self.ended(&why),
                Over::Broken(err) => {
                    tracing::debug!(session = self.id, %err, "session stream broke");
                    self.core.connect_failed(err);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
            if self.id == 0 && self.core.session.goodbye.is_cancelled() {
                return;
            }
        }
    }

    /// Forgets the session that has ended and everything that hung on it.
    fn ended(&mut self, why: &str) {
        if let Some(admission) = self.admission.take() {
            admission.abort();
        }
        if self.id != 0 {
            tracing::warn!(session = self.id, why, "the session has ended; a new one begins");
            self.core.session.set_live(None);
            self.core.session_ended(self.id);
        }
        self.id = 0;
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }

    /// Connects and serves one stream. The flag says whether metad welcomed us.
    async fn one_stream(&mut self) -> (Over, bool) {
        let cluster = self.core.cluster_key();
        let dir = self.core.session_dir.as_ref();
        let dead = match (self.id, dir) {
            (0, Some(dir)) => dir.dead(&cluster),
            _ => Vec::new(),
        };
        let hello = Hello {
            session: self.id,
            host: self.core.host.clone(),
            pid: std::process::id(),
            mountpoint: self.core.config.mountpoint.clone(),
            supersedes: dead.clone(),
            protocol_version: PROTOCOL_VERSION,
        };
        let sent = self.core.clock.boottime();
        let (mut stream, welcome) = match self.greet(hello).await {
            Ok(greeted) => greeted,
            Err(over) => return (over, false),
        };
        if let Some(dir) = dir {
            dir.forget(&cluster, &dead);
        }
        self.welcomed(&welcome, sent);
        let locks = self.core.attach_locks(self.id, welcome.reclaim);
        self.core.session.set_attached(true);
        let over = self.serve(&mut stream, &welcome, locks).await;
        self.core.session.set_attached(false);
        (over, true)
    }

    async fn greet(&self, hello: Hello) -> Result<(SessionStream, Welcome), Over> {
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, async {
            let mut stream = self.core.metad.session(hello).await?;
            let first = stream.down.next().await;
            Ok((stream, first))
        });
        let lost = |text: &str| Over::Broken(FsError::with(ErrorCode::ConnectionLost, text));
        let (stream, first) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(err)) => return Err(over(err)),
            Err(_) => return Err(lost("metad does not answer")),
        };
        match first {
            Some(Ok(SessionDown { message: Some(session_down::Message::Welcome(w)) })) => {
                Ok((stream, w))
            }
            Some(Ok(SessionDown { message: Some(session_down::Message::Ended(e)) })) => {
                Err(Over::Ended(e.why))
            }
            Some(Ok(_)) => Err(lost("metad answers something else than Welcome")),
            Some(Err(err)) => Err(over(err)),
            None => Err(lost("metad closed the session's stream")),
        }
    }

    fn welcomed(&mut self, welcome: &Welcome, sent: Duration) {
        let new = welcome.session != self.id;
        if new {
            self.id = welcome.session;
            self.incarnation += 1;
            self.lock = self.core.session_dir.as_ref().and_then(|dir| {
                dir.lock(&self.core.cluster_key(), self.id)
                    .inspect_err(|err| tracing::warn!(%err, "cannot mark the session as alive"))
                    .ok()
            });
        }
        if welcome.reclaim {
            self.incarnation += 1;
            // Not claimed again: what a leader has not granted itself is not relied on.
            self.core.known.lost();
        }
        let live = Live { id: self.id, incarnation: self.incarnation };
        match new {
            true => {
                let admission = tokio::spawn(alone::admit(self.core.clone(), live));
                self.admission = Some(admission.abort_handle());
            }
            false if self.core.session.now().is_some() => self.core.session.set_live(Some(live)),
            // The admission that is under way makes it live.
            false => {}
        }
        self.core.session.extend(sent, Duration::from_millis(welcome.lease_ms.into()));
        tracing::debug!(session = self.id, reclaim = welcome.reclaim, "session is live");
    }

    async fn serve(
        &mut self,
        stream: &mut SessionStream,
        welcome: &Welcome,
        locks: Attached,
    ) -> Over {
        let lease = Duration::from_millis(u64::from(welcome.lease_ms).max(100));
        let Attached { first, mut outbox } = locks;
        if let Err(over) = self.claim(&stream.up, first, welcome.reclaim).await {
            return over;
        }
        // What of the outbox waits for room in the stream.
        let (up, mut next_up) = (stream.up.clone(), None);
        let mut tick = tokio::time::interval(lease / 3);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        let mut renewals = Renewals { lease, last: 0, pending: VecDeque::new() };
        loop {
            let message = tokio::select! {
                _ = tick.tick() => {
                    let Some(renew) = renewals.next(self.core.clock.boottime()) else {
                        return broken("metad does not answer renewals");
                    };
                    let renew = session_up::Message::Renew(renew);
                    match tokio::time::timeout(lease / 6, send(&stream.up, renew)).await {
                        Ok(Ok(())) => continue,
                        Ok(Err(over)) => return over,
                        Err(_) => return broken("metad does not read the session's stream"),
                    }
                }
                Some(message) = outbox.recv(), if next_up.is_none() => {
                    next_up = Some(message);
                    continue;
                }
                room = up.reserve(), if next_up.is_some() => {
                    let Ok(room) = room else { return broken("the session's stream is closed") };
                    room.send(SessionUp { message: next_up.take() });
                    continue;
                }
                () = self.core.session.doubt.notified() => {
                    return broken("a request was refused with SESSION_ENDED");
                }
                () = self.core.session.goodbye.cancelled() => {
                    return goodbye(stream).await;
                }
                message = stream.down.next() => message,
            };
            match message {
                None => return broken("metad closed the session's stream"),
                Some(Err(err)) => return over(err),
                Some(Ok(down)) => match down.message {
                    Some(session_down::Message::Renewed(r)) => {
                        if let Some(sent) = renewals.answered(r.id) {
                            self.core.session.extend(sent, lease);
                        }
                    }
                    Some(session_down::Message::Recall(recall)) => {
                        self.recall(recall, stream.up.clone());
                    }
                    Some(session_down::Message::Lock(reply)) => self.core.lock_replied(reply),
                    Some(session_down::Message::Ended(e)) => return Over::Ended(e.why),
                    Some(session_down::Message::Welcome(_))
                    | Some(session_down::Message::Reclaimed(_))
                    | None => {}
                },
            }
        }
    }

    /// Tells metad what locks this session holds, and a new leader what else.
    async fn claim(
        &self,
        up: &mpsc::Sender<SessionUp>,
        locks: Vec<session_up::Message>,
        reclaim: bool,
    ) -> Result<(), Over> {
        for message in locks {
            send(up, message).await?;
        }
        if !reclaim {
            return Ok(());
        }
        // Once this is told, others may change what the kernel still keeps.
        self.core.known.let_go().await;
        let mut opens = self.core.files.opens(self.id, self.core.bucket());
        // Without it another session could be taken for the only one.
        opens.push(OpenInode {
            bucket: self.core.bucket().0,
            inode: NAMESPACE_INODE,
            write: true,
            lease: None,
        });
        tracing::debug!(session = self.id, opens = opens.len(), "re-claiming");
        let mut pages = opens.chunks(RECLAIM_PAGE).map(<[OpenInode]>::to_vec).peekable();
        while let Some(opens) = pages.next() {
            let reclaim = Reclaim { opens, last: pages.peek().is_none() };
            send(up, session_up::Message::Reclaim(reclaim)).await?;
        }
        Ok(())
    }

    /// Recalls are served by tasks of their own: none may wait for another.
    fn recall(&self, recall: Recall, up: mpsc::Sender<SessionUp>) {
        let core = self.core.clone();
        tokio::spawn(async move {
            crate::file::recall::serve(&core, &recall).await;
            if recall.inode == NAMESPACE_INODE {
                return core.give_locks(recall.id);
            }
            let done = session_up::Message::RecallDone(RecallDone { id: recall.id });
            // When the stream is gone, the recall comes again on the next one.
            let _ = up.send(SessionUp { message: Some(done) }).await;
        });
    }
}

/// Renewals that were sent and not answered.
struct Renewals {
    lease: Duration,
    /// The number of the last one.
    last: u64,
    /// Their numbers and when they were sent.
    pending: VecDeque<(u64, Duration)>,
}

impl Renewals {
    /// The next one, sent now; `None` when an earlier one has been without an answer for too long.
    fn next(&mut self, now: Duration) -> Option<Renew> {
        if self.pending.front().is_some_and(|(_, sent)| now - *sent > self.lease / 2) {
            return None;
        }
        self.last += 1;
        self.pending.push_back((self.last, now));
        Some(Renew { id: self.last })
    }

    /// When the last of those was sent that metad has answered now: all up to `id`.
    fn answered(&mut self, id: u64) -> Option<Duration> {
        let count = self.pending.iter().take_while(|(number, _)| *number <= id).count();
        self.pending.drain(..count).next_back().map(|(_, sent)| sent)
    }
}

fn broken(text: &str) -> Over {
    Over::Broken(FsError::with(ErrorCode::ConnectionLost, text))
}

fn over(err: FsError) -> Over {
    match err.code() {
        ErrorCode::SessionEnded => Over::Ended(err.detail().to_owned()),
        _ => Over::Broken(err),
    }
}

async fn send(up: &mpsc::Sender<SessionUp>, message: session_up::Message) -> Result<(), Over> {
    let message = SessionUp { message: Some(message) };
    up.send(message).await.map_err(|_| broken("the session's stream is closed"))
}

async fn goodbye(stream: &mut SessionStream) -> Over {
    let said = send(&stream.up, session_up::Message::Goodbye(Goodbye {})).await;
    if said.is_ok() {
        let ended = async {
            while let Some(Ok(down)) = stream.down.next().await {
                if let Some(session_down::Message::Ended(_)) = down.message {
                    return;
                }
            }
        };
        // Without an answer the session ends with its lease.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, ended).await;
    }
    Over::Goodbye
}
