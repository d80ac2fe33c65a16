//! One member of a group: proposing, reading, and who leads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::{Instant as _, Raft, ReadPolicy};
use ozone_proto::raft::Target;
use ozone_proto::raft::raft_server::RaftServer;
use ozone_rpc::Channels;
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult, RaftNodeId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::caretaker::{self, Caretaker};
use crate::config::{GroupConfig, GroupStatus, Peer, StateMachine};
use crate::log::{LogOptions, LogStore};
use crate::machine::{Machine, Signals};
use crate::network::Network;
use crate::service::{self, RaftService};
use crate::store::{Fixed, Mark, Store, View};
use crate::types::{Command, Config};

/// Largest command in bytes: with its envelope it fits into one message to a follower.
pub const COMMAND_MAX: usize = 4 << 20;
/// Longest that a shutdown waits for openraft's tasks to let go of the log.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Group<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

impl<S: StateMachine> Clone for Group<S> {
    fn clone(&self) -> Self {
        Group { inner: self.inner.clone() }
    }
}

struct Inner<S: StateMachine> {
    raft: Raft<Config, Machine<S>>,
    store: Arc<Store>,
    log: LogStore,
    machine: Arc<S>,
    service: RaftService<S>,
    node: u64,
    /// Kept here so that its receivers see the end of leadership, and not the end of the channel.
    leadership: Arc<watch::Sender<Option<u64>>>,
    /// Why this node has stopped itself.
    failure: Arc<watch::Sender<Option<String>>>,
    /// This node is the only voter.
    alone: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    /// How long after a majority's last word reads are safe without asking it again.
    read_lease: Duration,
    caretakers: Mutex<Vec<JoinHandle<()>>>,
}

impl<S: StateMachine> Group<S> {
    /// Opens log and tables and joins the group. Returns before a leader is known.
    pub async fn start(config: GroupConfig, machine: S, channels: Channels) -> FsResult<Self> {
        let (store, log) = open(&config, S::TABLES).await?;
        let pristine = log.is_pristine() && store.mark() == Mark::default();
        let machine = Arc::new(machine);
        let signals = Arc::new(Signals {
            applied_term: watch::Sender::new(0),
            checkpoint_due: tokio::sync::Notify::new(),
            checkpoint_bytes: config.checkpoint_overlay_bytes,
        });
        let network = Network {
            channels: channels.clone(),
            group: config.name.clone(),
            store: store.clone(),
        };
        let raft = Raft::new(
            config.node.0,
            Arc::new(raft_config(&config)?),
            network,
            log.clone(),
            Machine::new(store.clone(), machine.clone(), signals.clone()),
        )
        .await
        .map_err(|error| FsError::with(ErrorCode::Io, error.to_string()))?;

        let silence = service::silence(pristine, config.election_timeout.0);
        let service = RaftService::new(Arc::new(service::Inner {
            raft: raft.clone(),
            store: store.clone(),
            log: log.clone(),
            target: Target { group: config.name.clone(), node: config.node.0 },
            silent_until: Instant::now() + silence,
        }));
        let caretaker = Caretaker {
            raft: raft.clone(),
            store: store.clone(),
            log: log.clone(),
            signals,
            leadership: Arc::new(watch::Sender::new(None)),
            failure: Arc::new(watch::Sender::new(None)),
            alone: Arc::new(AtomicBool::new(false)),
            stopping: Arc::new(AtomicBool::new(false)),
        };
        let inner = Inner {
            leadership: caretaker.leadership.clone(),
            failure: caretaker.failure.clone(),
            alone: caretaker.alone.clone(),
            stopping: caretaker.stopping.clone(),
            raft,
            store,
            log,
            machine,
            service,
            node: config.node.0,
            read_lease: config.election_timeout.0 * 3 / 4,
            caretakers: Mutex::new(Vec::new()),
        };
        *inner.caretakers.lock() = caretaker::start(caretaker, config, channels, pristine);
        Ok(Group { inner: Arc::new(inner) })
    }

    /// To be served on the Raft port.
    pub fn service(&self) -> RaftServer<RaftService<S>> {
        RaftServer::new(self.inner.service.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// Has a command applied by all members, and returns its answer once this node has applied it.
    /// Errors of class `Again` mean "not executed", of class `MaybeDone` "perhaps".
    pub async fn propose(&self, command: Vec<u8>) -> FsResult<Vec<u8>> {
        let inner = &*self.inner;
        inner.check_running()?;
        if command.len() > COMMAND_MAX {
            let why = format!("a command of {} bytes; the limit is {COMMAND_MAX}", command.len());
            return Err(FsError::with(ErrorCode::Invalid, why));
        }
        if inner.store.room().await.is_err() {
            return Err(FsError::new(ErrorCode::ShuttingDown));
        }
        match inner.raft.client_write(Command(Bytes::from(command))).await {
            Ok(written) => Ok(written.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Err(not_leader(&to)),
            // The entry may live on in another leader's log; so may one that a stopping node has
            // written without being able to say so.
            Err(error) => Err(FsError::with(ErrorCode::ConnectionLost, error.to_string())),
        }
    }

    /// Returns when this node's tables hold everything that was acknowledged before the call, to
    /// anybody. NOT_LEADER if it does not lead.
    ///
    /// A leader that has applied the first entry of its term holds all that any leader before it
    /// has acknowledged, and applies its own entries before it acknowledges them. So what remains
    /// to be known is that nobody else leads: by being alone, or by a majority's word that is fresh
    /// enough.
    pub async fn read_barrier(&self) -> FsResult<()> {
        let inner = &*self.inner;
        inner.check_running()?;
        if self.is_leader() && (inner.alone.load(Ordering::Acquire) || inner.lease_is_fresh()) {
            return Ok(());
        }
        match inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(not_leader(&to))
            }
            Err(error) => Err(FsError::with(ErrorCode::Unavailable, error.to_string())),
        }
    }

    /// The tables as of now.
    pub fn view(&self) -> View<'_> {
        self.inner.store.view()
    }

    pub fn machine(&self) -> &S {
        &self.inner.machine
    }

    /// The leader and its Raft address, as far as this node knows.
    pub fn leader(&self) -> Option<(RaftNodeId, String)> {
        self.inner.leader().map(|(node, peer)| (RaftNodeId(node), peer.raft))
    }

    /// Where the leader serves clients.
    pub fn leader_rpc(&self) -> Option<String> {
        self.inner.leader().map(|(_, peer)| peer.rpc)
    }

    /// Whether this node leads and has applied the first entry of its term.
    pub fn is_leader(&self) -> bool {
        self.inner.leadership.borrow().is_some()
    }

    /// The term in which this node leads, once it has applied the first entry of that term; `None`
    /// while it does not.
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.inner.leadership.subscribe()
    }

    pub fn status(&self) -> GroupStatus {
        self.inner.status()
    }

    /// Makes everything applied so far durable in the tables and frees the log behind it.
    pub async fn checkpoint(&self) -> FsResult<()> {
        let inner = &*self.inner;
        let made = caretaker::checkpoint(&inner.raft, &inner.store).await;
        if let Err(error) = &made {
            caretaker::stop(&inner.raft, &inner.failure, error).await;
        }
        Ok(made?)
    }

    /// Everything applied so far, to be read for as long as it takes, on any thread, while changes go
    /// on. Costs a checkpoint.
    pub async fn fixed(&self) -> FsResult<Fixed> {
        self.checkpoint().await?;
        Ok(self.inner.store.fixed())
    }

    /// Makes another node a member: first it catches up, then it votes.
    pub async fn add_member(&self, node: RaftNodeId, peer: Peer) -> FsResult<()> {
        let raft = &self.inner.raft;
        raft.add_learner(node.0, peer, true).await.map_err(membership_error)?;
        let change = openraft::ChangeMembers::AddVoterIds([node.0].into());
        raft.change_membership(change, false).await.map_err(membership_error)?;
        Ok(())
    }

    /// Takes a member out of the group.
    pub async fn remove_member(&self, node: RaftNodeId) -> FsResult<()> {
        let change = openraft::ChangeMembers::RemoveVoters([node.0].into());
        self.inner.raft.change_membership(change, false).await.map_err(membership_error)?;
        Ok(())
    }

    /// Resolves when this node has stopped itself because of an I/O error, and says which.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.failure.subscribe();
        let why = failure.wait_for(Option::is_some).await.map(|why| why.clone());
        match why {
            Ok(why) => why.unwrap_or_default(),
            // The sender lives in self.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops cleanly: what was acknowledged is in the log, and a last checkpoint makes the next
    /// start quick. Log and tables are closed when the last clone of the group and of its service
    /// is dropped.
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        if inner.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        // An error here says that openraft's task has panicked: it is down all the same.
        let _ = inner.raft.shutdown().await;
        let caretakers = std::mem::take(&mut *inner.caretakers.lock());
        for task in caretakers {
            task.abort();
            let _ = task.await;
        }
        let store = inner.store.clone();
        let last = tokio::task::spawn_blocking(move || store.checkpoint_now()).await;
        if let Ok(Err(error)) = last {
            tracing::warn!(%error, "no last checkpoint; the next start replays the log");
        }
        inner.wait_for_release().await;
    }
}

impl<S: StateMachine> Inner<S> {
    fn check_running(&self) -> FsResult<()> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(FsError::new(ErrorCode::ShuttingDown));
        }
        match &*self.failure.borrow() {
            Some(why) => Err(FsError::with(ErrorCode::ShuttingDown, why.clone())),
            None => Ok(()),
        }
    }

    /// Whether a majority's last word is so fresh that no other node can have been elected.
    fn lease_is_fresh(&self) -> bool {
        let metrics = self.raft.data_metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        acked.is_some_and(|at| at.elapsed() < self.read_lease)
    }

    fn leader(&self) -> Option<(u64, Peer)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let peer = metrics.membership_config.get_node(&leader)?.clone();
        Some((leader, peer))
    }

    fn status(&self) -> GroupStatus {
        let (term, leader, members) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.nodes();
            let members = members.map(|(node, peer)| (*node, peer.clone())).collect();
            (metrics.vote.leader_id.term, metrics.current_leader, members)
        };
        let index = |mark: Mark| mark.applied.map_or(0, |(_, index)| index);
        let log = self.log.range();
        let (log_records, log_batches) = self.log.groups();
        GroupStatus {
            node: self.node,
            term,
            leader,
            members,
            applied: index(self.store.mark()),
            log_first: log.start,
            log_last: log.end.saturating_sub(1),
            log_bytes: self.log.bytes(),
            log_syncs: self.log.syncs(),
            log_records,
            log_batches: log_batches.into(),
            overlay_bytes: self.store.overlay_bytes(),
            checkpoint: index(self.store.checkpoint_mark()),
            checkpoints: self.store.checkpoint_counts(),
            tables_bytes: self.store.file_bytes(),
            failed: self.failure.borrow().clone(),
        }
    }

    /// openraft's tasks end on their own after its shutdown; they hold the log until then.
    async fn wait_for_release(&self) {
        let released = async {
            // The service holds one, this group another.
            while self.log.holders() > 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(RELEASE_TIMEOUT, released).await.is_err() {
            tracing::warn!("some task still holds the log");
        }
    }
}

async fn open(
    config: &GroupConfig,
    tables: &'static [(u8, &'static str)],
) -> FsResult<(Arc<Store>, LogStore)> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let (disk, dir) = (&config.disk, &config.dir);
        let store = Store::open(disk.clone(), dir, tables, config.store)
            .map_err(|error| not_opened("tables", dir, &error))?;
        let options = LogOptions {
            segment_bytes: config.log_segment_bytes,
            cache_bytes: config.log_cache_bytes,
        };
        let log_dir = dir.join("log");
        let log = LogStore::open(disk.clone(), &log_dir, &options)
            .map_err(|error| not_opened("log", &log_dir, &error))?;
        Ok((Arc::new(store), log))
    });
    opened.await.map_err(std::io::Error::other)?
}

fn not_opened(what: &str, dir: &Path, error: &std::io::Error) -> FsError {
    let code = match error.kind() {
        std::io::ErrorKind::InvalidData => ErrorCode::Corrupt,
        std::io::ErrorKind::StorageFull => ErrorCode::NoSpace,
        _ => ErrorCode::Io,
    };
    FsError::with(code, format!("cannot open the {what} in {}: {error}", dir.display()))
}

fn raft_config(config: &GroupConfig) -> FsResult<openraft::Config> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let raft = openraft::Config {
        cluster_name: config.name.clone(),
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: millis(config.election_timeout.0),
        election_timeout_max: millis(config.election_timeout.1),
        max_payload_entries: 1024,
        // The caretaker decides about both, by bytes.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A returning member asks first, instead of disturbing a leader that is well.
        enable_pre_vote: Some(true),
        // A leader that restarts would lead on in its old term, and nobody could tell whether it
        // has applied what it acknowledged before. It is elected anew instead.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|error| FsError::with(ErrorCode::Invalid, error.to_string()))
}

fn not_leader(to: &ForwardToLeader<Config>) -> FsError {
    match (&to.leader_id, &to.leader_node) {
        (Some(id), Some(peer)) => {
            FsError::with(ErrorCode::NotLeader, format!("the leader is {id} at {}", peer.rpc))
        }
        _ => FsError::with(ErrorCode::NotLeader, "no leader is known"),
    }
}

fn membership_error(error: RaftError<Config, ClientWriteError<Config>>) -> FsError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => not_leader(&to),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            FsError::with(ErrorCode::Invalid, error.to_string())
        }
        error => FsError::with(ErrorCode::ConnectionLost, error.to_string()),
    }
}
