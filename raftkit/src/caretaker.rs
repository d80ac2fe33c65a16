//! What a group does on its own: founding, leadership, checkpoints, and noticing that it is down.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ServerState};
use ozone_proto::raft as wire;
use ozone_rpc::Channels;
use ozone_types::FsResult;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{GroupConfig, Peer, StateMachine};
use crate::log::LogStore;
use crate::machine::{Machine, Signals};
use crate::network;
use crate::store::Store;
use crate::types::Config;

/// How often the policy looks at sizes and age, at least.
const POLICY_TICK: Duration = Duration::from_secs(1);
/// How often the founder asks the others.
const FOUNDING_TICK: Duration = Duration::from_millis(200);
/// How long one of them may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Caretaker<S: StateMachine> {
    pub raft: Raft<Config, Machine<S>>,
    pub store: Arc<Store>,
    pub log: LogStore,
    pub signals: Arc<Signals>,
    pub leadership: Arc<watch::Sender<Option<u64>>>,
    pub failure: Arc<watch::Sender<Option<String>>>,
    pub alone: Arc<AtomicBool>,
    pub stopping: Arc<AtomicBool>,
}

/// Starts the tasks. `pristine`: this node has never taken part in a group.
pub(crate) fn start<S: StateMachine>(
    caretaker: Caretaker<S>,
    config: GroupConfig,
    channels: Channels,
    pristine: bool,
) -> Vec<JoinHandle<()>> {
    let policy = Policy::new(&caretaker, &config);
    let addresses =
        keep_addresses(caretaker.raft.clone(), config.members(), caretaker.leadership.subscribe());
    let founding = found(caretaker.raft.clone(), config, channels, pristine);
    vec![
        tokio::spawn(caretaker.watch()),
        tokio::spawn(policy.run()),
        tokio::spawn(founding),
        tokio::spawn(addresses),
    ]
}

impl<S: StateMachine> Caretaker<S> {
    /// Follows openraft's state. Wakes only when leadership or membership changes.
    async fn watch(self) {
        let mut server = self.raft.server_metrics();
        let mut applied = self.signals.applied_term.subscribe();
        loop {
            self.publish(&server.borrow_and_update().clone(), *applied.borrow_and_update());
            let changed = tokio::select! {
                changed = server.changed() => changed.is_ok(),
                changed = applied.changed() => changed.is_ok(),
            };
            if !changed {
                break;
            }
        }
        self.leadership.send_replace(None);
        if !self.stopping.load(Ordering::Acquire) {
            let state = self.raft.metrics().borrow_watched().running_state.clone();
            let why = match state {
                Ok(()) => "openraft's task has ended".to_owned(),
                Err(fatal) => fatal.to_string(),
            };
            fail(&self.failure, why);
        }
    }

    fn publish(&self, server: &openraft::metrics::RaftServerMetrics<Config>, applied_term: u64) {
        let members = &server.membership_config;
        let alone = members.voter_ids().eq([server.id]);
        self.alone.store(alone, Ordering::Release);
        self.log.set_alone(alone);
        let term = server.vote.leader_id.term;
        let leads = server.state == ServerState::Leader && term == applied_term;
        self.leadership.send_if_modified(|leadership| {
            let now = leads.then_some(term);
            let modified = *leadership != now;
            *leadership = now;
            modified
        });
    }
}

/// The first reason stands.
fn fail(failure: &watch::Sender<Option<String>>, why: String) {
    failure.send_if_modified(|failure| {
        let first = failure.is_none();
        if first {
            tracing::error!(why, "this member of the group has stopped");
            *failure = Some(why);
        }
        first
    });
}

/// Ends this member after a failed checkpoint.
pub(crate) async fn stop<S: StateMachine>(
    raft: &Raft<Config, Machine<S>>,
    failure: &watch::Sender<Option<String>>,
    error: &io::Error,
) {
    fail(failure, format!("a checkpoint failed: {error}"));
    // An error here means that it is down already.
    let _ = raft.shutdown().await;
}

/// When checkpoints are made, and how much log is kept behind them.
struct Policy<S: StateMachine> {
    raft: Raft<Config, Machine<S>>,
    store: Arc<Store>,
    log: LogStore,
    signals: Arc<Signals>,
    failure: Arc<watch::Sender<Option<String>>>,
    alone: Arc<AtomicBool>,
    log_bytes: u64,
    keep_bytes: u64,
    interval: Duration,
    /// The last checkpoint: when, and what the log had written by then.
    last: (Instant, u64),
    /// Index of the snapshot behind which the log has been purged.
    purged_behind: u64,
}

impl<S: StateMachine> Policy<S> {
    fn new(caretaker: &Caretaker<S>, config: &GroupConfig) -> Self {
        Policy {
            raft: caretaker.raft.clone(),
            store: caretaker.store.clone(),
            log: caretaker.log.clone(),
            signals: caretaker.signals.clone(),
            failure: caretaker.failure.clone(),
            alone: caretaker.alone.clone(),
            log_bytes: config.checkpoint_log_bytes,
            keep_bytes: config.log_keep_bytes,
            interval: config.checkpoint_interval,
            last: (Instant::now(), 0),
            purged_behind: 0,
        }
    }

    async fn run(mut self) {
        let mut tick = tokio::time::interval(POLICY_TICK.min(self.interval));
        loop {
            let due = tokio::select! {
                () = self.signals.checkpoint_due.notified() => true,
                _ = tick.tick() => self.is_due(),
            };
            self.purge().await;
            if !due {
                continue;
            }
            self.last = (Instant::now(), self.log.bytes_written());
            if let Err(error) = checkpoint(&self.raft, &self.store).await {
                stop(&self.raft, &self.failure, &error).await;
                return;
            }
        }
    }

    fn is_due(&self) -> bool {
        let (when, written) = self.last;
        if self.log.bytes_written() - written >= self.log_bytes {
            return true;
        }
        when.elapsed() >= self.interval && self.store.mark() != self.store.checkpoint_mark()
    }

    /// Has openraft purge the log behind its last snapshot, if it has a new one. Never waits for
    /// openraft: it may itself be waiting for a checkpoint.
    async fn purge(&mut self) {
        let snapshot = self.raft.metrics().borrow_watched().snapshot.map_or(0, |id| id.index);
        if snapshot <= self.purged_behind {
            return;
        }
        self.purged_behind = snapshot;
        let keep_bytes = if self.alone.load(Ordering::Acquire) { 0 } else { self.keep_bytes };
        let upto = snapshot.min(self.log.keep_from(keep_bytes).saturating_sub(1));
        // An error means that openraft is down, which its own watcher reports.
        let _ = self.raft.trigger().purge_log(upto).await;
    }
}

/// Makes everything applied so far durable in the tables, and tells openraft, which calls it a
/// snapshot. The checkpoint comes first: while the overlay is full, `apply` waits for room, and
/// openraft does nothing else.
pub(crate) async fn checkpoint<S: StateMachine>(
    raft: &Raft<Config, Machine<S>>,
    store: &Arc<Store>,
) -> io::Result<()> {
    let worker = store.clone();
    tokio::task::spawn_blocking(move || worker.checkpoint_now()).await??;
    if store.mark().applied.is_some() {
        // As above.
        let _ = raft.trigger().snapshot().await;
    }
    Ok(())
}

/// While this node leads, the members' addresses are those of its configuration: a node may have
/// been started again at another address.
async fn keep_addresses<S: StateMachine>(
    raft: Raft<Config, Machine<S>>,
    configured: BTreeMap<u64, Peer>,
    mut leadership: watch::Receiver<Option<u64>>,
) {
    while leadership.wait_for(Option::is_some).await.is_ok() {
        let members = raft.server_metrics().borrow_watched().membership_config.clone();
        let moved: BTreeMap<u64, Peer> = configured
            .iter()
            .filter(|(node, peer)| members.get_node(node).is_some_and(|known| known != *peer))
            .map(|(node, peer)| (*node, peer.clone()))
            .collect();
        if !moved.is_empty() {
            tracing::info!(?moved, "members have moved");
            let change = openraft::ChangeMembers::SetNodes(moved);
            if let Err(error) = raft.change_membership(change, true).await {
                tracing::warn!(%error, "cannot record the members' addresses");
            }
        }
        if leadership.wait_for(Option::is_none).await.is_err() {
            return;
        }
    }
}

/// Makes a new group, or waits to be taken into one. A group of one elects itself at once.
async fn found<S: StateMachine>(
    raft: Raft<Config, Machine<S>>,
    config: GroupConfig,
    channels: Channels,
    pristine: bool,
) {
    let members = config.members();
    if !pristine {
        let server = raft.server_metrics();
        let alone = server.borrow_watched().membership_config.voter_ids().eq([config.node.0]);
        if alone && let Err(error) = raft.trigger().elect(false).await {
            tracing::warn!(%error, "cannot ask for an election");
        }
        return;
    }
    if members.keys().next() != Some(&config.node.0) {
        return;
    }
    for (node, peer) in members.iter().filter(|(node, _)| **node != config.node.0) {
        match wait_for_probe(&channels, &config.name, *node, &peer.raft).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(node, "the group exists already; waiting for its leader");
                return;
            }
            Err(error) => {
                tracing::error!(node, %error, "cannot found the group");
                return;
            }
        }
    }
    if let Err(error) = raft.initialize(members).await {
        tracing::warn!(%error, "cannot found the group");
    }
}

/// Asks a member whether it has never taken part in a group, until it answers.
async fn wait_for_probe(
    channels: &Channels,
    group: &str,
    node: u64,
    address: &str,
) -> FsResult<bool> {
    let mut client = network::client(channels, address)?;
    loop {
        let target = Some(wire::Target { group: group.to_owned(), node });
        let probe = client.probe(wire::ProbeRequest { target });
        match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(Ok(reply)) => return Ok(reply.into_inner().empty),
            Ok(Err(status)) => tracing::debug!(node, %status, "no answer yet"),
            Err(_) => tracing::debug!(node, "no answer yet"),
        }
        tokio::time::sleep(FOUNDING_TICK).await;
    }
}
