//! Registering with containerd, and the beats after that.

use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{DataDir, DataDirError};
use ozone_proto::containerd::container_command::Command;
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::containerd::{
    ContainerCommand, HeartbeatReply, HeartbeatRequest, RegisterReply, RegisterRequest,
};
use ozone_rpc::http::Health;
use ozone_rpc::token::TokenKey;
use ozone_rpc::{LeaderClient, Retry};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{BlockdId, ClusterId, ContainerId, ErrorCode, FsError, FsResult};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::deletions::Deletions;
use super::report::{self, Pending};
use crate::key_file;
use crate::metrics::Metrics;
use crate::service::Gate;
use crate::store::{Request, Store};

const CALL: Retry =
    Retry { deadline: Duration::from_secs(3), attempt: Duration::from_secs(2), idempotent: true };
/// Between tries to register.
const REGISTER_AGAIN: Duration = Duration::from_millis(250);
/// A standing problem is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// News go out at once, but not more often than this.
const NEWS_EVERY: Duration = Duration::from_millis(50);
const BEAT_DEFAULT: Duration = Duration::from_secs(1);

/// Who this block server is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub blockd: BlockdId,
    /// host:port of its data service, as clients reach it.
    pub address: String,
    pub host: String,
}

/// The conversation with containerd.
#[derive(Debug)]
pub struct Heartbeats {
    pub identity: Identity,
    pub data_dir: Arc<DataDir>,
    pub store: Arc<Store>,
    pub containerd: LeaderClient,
    pub gate: Gate,
    pub health: Health,
    pub metrics: Metrics,
    /// Wakes it before its time.
    pub news: Arc<Notify>,
}

/// Nothing can be done about it: this blockd must stop.
#[derive(Debug)]
pub struct Fatal(pub String);

impl Heartbeats {
    /// Until something fatal happens: the cluster is another one.
    pub async fn run(self) -> Fatal {
        let deletions = Deletions::start(self.store.clone(), self.news.clone());
        let mut pending = Pending::default();
        let mut log = Limited::default();
        loop {
            let beat = match self.register(&mut log).await {
                Ok(beat) => beat,
                Err(fatal) => return fatal,
            };
            pending.full = true;
            if let Err(fatal) = self.beat_on(beat, &deletions, &mut pending, &mut log).await {
                return fatal;
            }
        }
    }

    /// Registers, however long it takes. Returns the time between beats.
    async fn register(&self, log: &mut Limited) -> Result<Duration, Fatal> {
        loop {
            match self.try_register().await {
                Ok(reply) => {
                    log.over("registered with containerd");
                    self.show_health(None);
                    return Ok(match reply.heartbeat_ms {
                        0 => BEAT_DEFAULT,
                        ms => Duration::from_millis(ms.into()),
                    });
                }
                Err(err) if err.code() == ErrorCode::WrongCluster => {
                    return Err(Fatal(err.to_string()));
                }
                Err(err) => {
                    log.warn(&format!("cannot register with containerd: {err}"));
                    self.show_health(Some(&err));
                    tokio::time::sleep(REGISTER_AGAIN).await;
                }
            }
        }
    }

    async fn try_register(&self) -> FsResult<RegisterReply> {
        let cluster = self.data_dir.cluster();
        let request = RegisterRequest {
            blockd: self.identity.blockd.to_vec(),
            cluster: cluster.map(ClusterId::to_vec).unwrap_or_default(),
            address: self.identity.address.clone(),
            disks: report::disks(&self.store),
            host: self.identity.host.clone(),
        };
        let register = |channel| {
            let request = request.clone();
            async move { client(channel).register(request).await }
        };
        let reply = self.containerd.call(CALL, register).await?;
        let cluster = ClusterId::from_slice(&reply.cluster)
            .ok_or_else(|| FsError::with(ErrorCode::Protocol, "a reply without a cluster id"))?;
        let key = TokenKey::from_slice(&reply.token_key)?;
        self.data_dir.bind_cluster(cluster).map_err(|err| {
            let code = match err {
                DataDirError::OtherCluster { .. } => ErrorCode::WrongCluster,
                _ => ErrorCode::Io,
            };
            FsError::with(code, err.to_string())
        })?;
        key_file::write(self.data_dir.path(), &key)
            .map_err(|err| FsError::with(ErrorCode::Io, format!("the token key: {err}")))?;
        self.gate.set_key(key);
        Ok(reply)
    }

    /// Beats until containerd wants to be registered with again.
    async fn beat_on(
        &self,
        every: Duration,
        deletions: &Deletions,
        pending: &mut Pending,
        log: &mut Limited,
    ) -> Result<(), Fatal> {
        loop {
            pending.gather(&self.store, deletions.take_done());
            let request = pending.request(self.identity.blockd.to_vec(), &self.store);
            let sent = self.send(&request).await;
            let heard = sent.is_ok();
            match sent {
                Ok(reply) => {
                    self.metrics.heartbeats.inc();
                    log.over("containerd answers again");
                    self.show_health(None);
                    if reply.register_again {
                        return Ok(());
                    }
                    pending.confirm(&request);
                    self.obey(reply.commands, deletions, pending);
                }
                Err(err) if err.code() == ErrorCode::WrongCluster => {
                    return Err(Fatal(err.to_string()));
                }
                Err(err) => {
                    log.warn(&format!("heartbeat failed: {err}"));
                    self.show_health(Some(&err));
                }
            }
            let next = Instant::now() + every;
            tokio::time::sleep(NEWS_EVERY.min(every)).await;
            if !(heard && pending.full) {
                // A timeout here is the usual case: nothing happened until the next beat.
                let _ = tokio::time::timeout_at(next, self.news.notified()).await;
            }
        }
    }

    async fn send(&self, request: &HeartbeatRequest) -> FsResult<HeartbeatReply> {
        let beat = |channel| {
            let request = request.clone();
            async move { client(channel).heartbeat(request).await }
        };
        self.containerd.call(CALL, beat).await
    }

    fn obey(&self, commands: Vec<ContainerCommand>, deletions: &Deletions, pending: &mut Pending) {
        for command in commands {
            match command.command {
                Some(Command::Close(close)) => self.close(ContainerId(close.container)),
                Some(Command::Delete(transaction)) => deletions.add(transaction),
                Some(Command::ReportAll(all)) => pending.full |= all,
                None => tracing::warn!("containerd sent a command that this version does not know"),
            }
        }
    }

    fn close(&self, container: ContainerId) {
        let store = self.store.clone();
        let news = self.news.clone();
        tokio::spawn(async move {
            let closed = match store.home_or_place(container, false) {
                Ok(disk) => disk.change(Request::Close { container }).await,
                Err(err) => Err(err),
            };
            match closed {
                Ok(_) => news.notify_one(),
                // containerd repeats the command until it hears that it is closed.
                Err(err) => tracing::warn!(%container, %err, "a container could not be closed"),
            }
        });
    }

    fn show_health(&self, containerd: Option<&FsError>) {
        let mut problems = report::problems(&self.store);
        if let Some(err) = containerd {
            problems.push(format!("containerd: {err}"));
        }
        match problems.is_empty() {
            true => self.health.set_ok(),
            false => self.health.set_bad(problems.join("; ")),
        }
    }
}

fn client(channel: tonic::transport::Channel) -> ContainerdClient<tonic::transport::Channel> {
    ContainerdClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// A log line per problem, not per try.
#[derive(Debug, Default)]
struct Limited {
    last: Option<Instant>,
}

impl Limited {
    fn warn(&mut self, text: &str) {
        if self.last.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            tracing::warn!("{text}");
            self.last = Some(Instant::now());
        }
    }

    fn over(&mut self, text: &str) {
        if self.last.take().is_some() {
            tracing::info!("{text}");
        }
    }
}
