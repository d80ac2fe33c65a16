//! What exists only while this node leads: sessions' streams, leases, pins, locks, reservations, workers.
//! All of it begins empty (or from the tables) with a term and is dropped at its end.

use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_types::{ErrorCode, FsResult, SessionId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocks::{Reports, Reservations, Topology};
use crate::detach::to_the_end;
use crate::gc::{self, Bells, Statuses};
use crate::leases::Leases;
use crate::locks::Locks;
use crate::node::Node;
use crate::ops;
use crate::sessions::{Owner, SessionTable, Sessions};

/// Between attempts to commit the end of a session.
const END_RETRY: Duration = Duration::from_millis(200);

/// Walks through the namespace at once: each keeps a thread busy.
const COUNTING_MAX: usize = 2;

/// One term of leadership.
#[derive(Debug)]
pub struct Leader {
    pub term: u64,
    pub sessions: Arc<Sessions>,
    pub leases: Arc<Leases>,
    pub locks: Locks,
    pub topology: Topology,
    pub reservations: Reservations,
    pub reports: Reports,
    pub bells: Bells,
    pub workers: Statuses,
    /// Who walks through the namespace for operators; few may at once.
    pub counting: Arc<Semaphore>,
    /// The term is over.
    pub stop: CancellationToken,
    /// What [`Leader::end`] waits for: workers, and streams, which watch `stop` themselves.
    pub tasks: TaskTracker,
}

impl Leader {
    /// Takes up the term: the sessions of the tables get a full lease time each, and the workers
    /// start.
    pub async fn begin(node: &Arc<Node>, term: u64) -> FsResult<Arc<Leader>> {
        let (known, containers, blockds) =
            node.read(|t| Ok((ops::sessions(t)?, ops::containers(t)?, ops::blockds(t)?))).await?;
        let ids: Vec<SessionId> = known.iter().map(|(id, _)| *id).collect();
        let owners = known
            .into_iter()
            .map(|(id, s)| (id, Owner { host: s.host, pid: s.pid, mountpoint: s.mountpoint }));
        let lease = Duration::from_millis(node.config.lease_ms);
        let table = SessionTable::new(lease, owners, node.clock.boottime());
        let sessions = Arc::new(Sessions::new(table));
        let leases = Leases::new(term, sessions.clone(), node.clock.clone(), node.metrics.clone());
        for &id in &ids {
            leases.begin_session(id);
        }
        let locks = Locks::new(sessions.clone(), node.metrics.clone());
        let leader = Arc::new(Leader {
            term,
            sessions,
            leases,
            locks,
            topology: Topology::new(containers, blockds),
            reservations: Reservations::default(),
            reports: Reports::default(),
            bells: Bells::default(),
            workers: Statuses::default(),
            counting: Arc::new(Semaphore::new(COUNTING_MAX)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        tracing::info!(term, sessions = ids.len(), "this metad leads");
        gc::start(node, &leader);
        Ok(leader)
    }

    /// Lets a task live until the term ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled_owned(task).await });
    }

    /// The term is over: streams end, who waits is sent away, workers stop.
    pub async fn end(&self) {
        self.stop.cancel();
        self.leases.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends a session for good: nothing of it is executed from here on; when that has committed its
    /// leases, pins and locks fall. Returns then. Error: NOT_LEADER.
    pub async fn end_session(
        self: &Arc<Self>,
        node: &Arc<Node>,
        id: SessionId,
        why: &'static str,
    ) -> FsResult<()> {
        if !self.sessions.with(|t| t.begin_end(id)) {
            return Ok(());
        }
        let (leader, node) = (self.clone(), node.clone());
        to_the_end(async move { leader.commit_end(&node, id, why).await }).await
    }

    async fn commit_end(&self, node: &Node, id: SessionId, why: &'static str) -> FsResult<()> {
        let command = Command::SessionEnd(log::SessionEnd { session: id.0, why: why.to_owned() });
        while let Err(err) = node.propose(command.clone()).await {
            tracing::debug!(session = id.0, %err, "cannot end the session yet");
            tokio::select! {
                () = self.stop.cancelled() => return Err(ErrorCode::NotLeader.into()),
                () = tokio::time::sleep(END_RETRY) => {}
            }
        }
        tracing::info!(session = id.0, why, "session ended");
        node.metrics.sessions_ended.inc();
        self.leases.end_session(id);
        self.locks.end_session(id);
        self.sessions.ended(id, why);
        self.bells.seal.ring();
        self.bells.purge.ring();
        Ok(())
    }
}
