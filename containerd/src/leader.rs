//! What exists only while this node leads: built from the tables when leadership begins, dropped
//! when it ends. Commands go through [`Leader::propose`]; after each, the rows it touched are read
//! from the tables again, so that memory never runs ahead of what the group has agreed on.

use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{Clock, DataDir, random};
use ozone_proto::containerd_log as log;
use ozone_proto::containerd_log::command::Command as Body;
use ozone_proto::containerd_log::command_reply::Reply;
use ozone_raftkit::Group;
use ozone_types::{BlockdId, ClusterId, ContainerId, ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::apply::Machine;
use crate::blockds::Blockds;
use crate::config::{Config, Timing};
use crate::containers::Containers;
use crate::deletions::Deletions;
use crate::metrics::Metrics;
use crate::safemode::{self, Safemode};
use crate::sweep::ToClose;
use crate::tables::{self, Cluster, DeletionRow};
use crate::topology::{Item, Topology};

/// What every part of the daemon needs, leader or not.
#[derive(Clone)]
pub(crate) struct Core {
    pub config: Arc<Config>,
    /// host:port of this node's RPC listener, as others reach it.
    pub rpc_address: String,
    pub timing: Timing,
    pub clock: Arc<dyn Clock>,
    pub group: Group<Machine>,
    pub data_dir: Arc<DataDir>,
    pub metrics: Metrics,
}

/// What the leader keeps in memory.
pub(crate) struct LeaderState {
    pub blockds: Blockds,
    pub containers: Containers,
    pub deletions: Deletions,
    pub topology: Topology,
    /// Of the last sweep.
    pub to_close: ToClose,
    pub safemode: Safemode,
}

/// A term of leadership.
pub(crate) struct Leader {
    pub core: Core,
    pub cluster: Cluster,
    /// Lock order: `opening`, then `state`, then the view of the tables. Never held across a
    /// proposal (`state`); held across proposals (`opening`).
    pub state: Mutex<LeaderState>,
    /// Who opens containers and reserves ids does so alone, lest ten requests open ten containers.
    pub opening: tokio::sync::Mutex<()>,
    /// The topology's version, for those who wait for it to grow.
    pub changed: watch::Sender<u64>,
    /// Something happened that the sweep should look at before its time.
    pub wake: Notify,
    /// Cancelled when leadership ends.
    pub ended: CancellationToken,
    term: u64,
    /// The term in which this node leads now.
    leadership: watch::Receiver<Option<u64>>,
}

impl Leader {
    /// Builds the leader's state from the tables; the group's first leader founds the cluster.
    /// `ended` is for the caller to cancel.
    pub async fn begin(core: Core, term: u64, ended: CancellationToken) -> FsResult<Arc<Leader>> {
        let known = tables::cluster(&core.group.view())?;
        let cluster = match known {
            Some(cluster) => cluster,
            None => found(&core).await?,
        };
        let state = read_state(&core, term)?;
        let version = state.topology.version();
        let leadership = core.group.leadership();
        Ok(Arc::new(Leader {
            core,
            cluster,
            state: Mutex::new(state),
            opening: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(version),
            wake: Notify::new(),
            ended,
            term,
            leadership,
        }))
    }

    pub fn now(&self) -> Duration {
        self.core.clock.boottime()
    }

    /// Has the group apply a command. Error: NOT_LEADER also when this node leads again by now: what
    /// belongs to an earlier term must not change the tables behind its successor's memory.
    pub async fn propose(&self, body: Body) -> FsResult<Reply> {
        if *self.leadership.borrow() != Some(self.term) {
            return Err(ErrorCode::NotLeader.into());
        }
        propose(&self.core, body).await
    }

    /// Reads these containers' rows again and announces what changed.
    pub fn refresh(&self, ids: &[ContainerId]) -> FsResult<()> {
        let mut state = self.state.lock();
        {
            let view = self.core.group.view();
            for &id in ids {
                let row = tables::container(&view, id)?;
                if state.containers.refresh(id, row) {
                    state.topology.note(Item::Container(id));
                }
            }
        }
        self.announce(&state);
        Ok(())
    }

    /// Reads the bad blocks again: they are few.
    pub fn refresh_bad_blocks(&self) -> FsResult<()> {
        let mut state = self.state.lock();
        let bad = tables::bad_blocks(&self.core.group.view())?;
        state.containers.set_bad_blocks(bad);
        Ok(())
    }

    /// The rows of these deletions, as far as they still exist.
    pub fn deletion_rows(&self, transactions: &[u64]) -> FsResult<Vec<(u64, DeletionRow)>> {
        let view = self.core.group.view();
        let mut rows = Vec::new();
        for &transaction in transactions {
            if let Some(row) = tables::deletion(&view, transaction)? {
                rows.push((transaction, row));
            }
        }
        Ok(rows)
    }

    /// Wakes those who wait for the topology, if it has changed.
    pub fn announce(&self, state: &LeaderState) {
        let version = state.topology.version();
        self.changed.send_if_modified(|seen| std::mem::replace(seen, version) != version);
    }

    pub fn note_blockd(&self, state: &mut LeaderState, id: BlockdId) {
        state.topology.note(Item::Blockd(id));
        self.announce(state);
    }

    /// `cluster`: what the caller believes (empty: nothing yet). Error: WRONG_CLUSTER naming both.
    pub fn check_cluster(&self, cluster: &[u8], who: &str) -> FsResult<()> {
        if cluster.is_empty() {
            return Ok(());
        }
        let theirs = ClusterId::from_slice(cluster)
            .ok_or_else(|| FsError::with(ErrorCode::Protocol, "a cluster id has sixteen bytes"))?;
        if theirs != self.cluster.id {
            let text = format!("{who} belongs to cluster {theirs}, this is {}", self.cluster.id);
            return Err(FsError::with(ErrorCode::WrongCluster, text));
        }
        Ok(())
    }
}

/// Chooses the cluster's id and token key. If another leader was faster, its choice stands. Error:
/// WRONG_CLUSTER if this node has belonged to a cluster already.
async fn found(core: &Core) -> FsResult<Cluster> {
    if let Some(cluster) = core.data_dir.cluster() {
        let text = format!(
            "{} belongs to cluster {cluster}, but its Raft log and tables are empty: restore them, \
             or join the group with a new data directory",
            core.data_dir.path().display()
        );
        return Err(FsError::with(ErrorCode::WrongCluster, text));
    }
    let proposed = Cluster { id: ClusterId(random::uuid()), token_key: random::bytes() };
    let record = proposed.to_record();
    let command = log::InitCluster { cluster: record.cluster, token_key: record.token_key };
    match propose(core, Body::InitCluster(command)).await? {
        Reply::Cluster(record) => Cluster::from_record(&record).ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

async fn propose(core: &Core, body: Body) -> FsResult<Reply> {
    core.metrics.raft_proposals.inc();
    let command = log::Command { command: Some(body) };
    let bytes = core.group.propose(command.encode_to_vec()).await?;
    let reply = log::CommandReply::decode(bytes.as_slice()).map_err(|_| unexpected())?;
    match reply.reply {
        Some(Reply::Failed(failed)) => {
            let code = ErrorCode::from_wire(failed.code).unwrap_or(ErrorCode::Protocol);
            Err(FsError::with(code, failed.detail))
        }
        Some(reply) => Ok(reply),
        None => Err(unexpected()),
    }
}

/// A reply that does not fit its command: only a bug can be behind it.
pub(crate) fn unexpected() -> FsError {
    FsError::with(ErrorCode::Corrupt, "the state machine's reply does not fit the command")
}

fn read_state(core: &Core, term: u64) -> FsResult<LeaderState> {
    let view = core.group.view();
    let now = core.clock.boottime();
    let mut deletions = Deletions::default();
    for row in tables::deletions(&view) {
        let (transaction, row) = row?;
        deletions.logged(transaction, &row);
    }
    let mut state = LeaderState {
        blockds: Blockds::new(tables::blockds(&view)?, now, core.timing),
        containers: Containers::new(tables::containers(&view)?, tables::bad_blocks(&view)?),
        deletions,
        topology: Topology::new(term),
        to_close: ToClose::default(),
        safemode: Safemode::starting(now),
    };
    safemode::look(&mut state, now);
    Ok(state)
}
