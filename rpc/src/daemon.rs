//! What is the same in every daemon from its start to its end: the listeners, the address that others
//! are told, the tasks, and the reason why it cannot go on.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, Router, TcpIncoming};

use crate::http::{self, Health};
use crate::net;

/// Calls that are under way when a daemon stops may take this long.
const DRAIN: Duration = Duration::from_secs(3);

/// Why a daemon cannot listen; the text names the address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operator has most likely started the same daemon twice.
    #[error("{err} (another {daemon}?)")]
    InUse { daemon: &'static str, err: io::Error },
    #[error("{0}")]
    Other(io::Error),
}

impl ListenError {
    fn new(daemon: &'static str, err: io::Error) -> Self {
        match err.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { daemon, err },
            _ => ListenError::Other(err),
        }
    }
}

/// Listens for gRPC calls; port 0 takes a free one. Returns the address really listened on. `daemon`
/// is the one that listens, for the error's text.
pub async fn bind(
    daemon: &'static str,
    addr: SocketAddr,
) -> Result<(TcpIncoming, SocketAddr), ListenError> {
    net::bind(addr).await.map_err(|err| ListenError::new(daemon, err))
}

/// [`bind`] for the HTTP port.
pub async fn listen(
    daemon: &'static str,
    addr: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |err| ListenError::new(daemon, err);
    let listener = net::listen(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// `host:port` as others reach a listener: what is configured, or the address listened on, with this
/// machine's name in place of "all addresses". A machine without a name can be reached under loopback
/// at least: by itself.
pub fn advertised(configured: Option<&str>, bound: SocketAddr) -> String {
    match configured {
        Some(address) => address.to_owned(),
        None => reachable(bound, host_name()),
    }
}

fn reachable(bound: SocketAddr, host: Option<String>) -> String {
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    // Not "localhost": that need not resolve, or resolves to the family that nobody listens on.
    let loopback = match bound {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    match host {
        Some(host) => format!("{host}:{}", bound.port()),
        None => SocketAddr::new(loopback, bound.port()).to_string(),
    }
}

/// This machine's name, if it has one.
pub fn host_name() -> Option<String> {
    // An unreadable /proc is a machine without a name: there is nothing that depends on it alone.
    parse_host_name(&std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?)
}

fn parse_host_name(text: &str) -> Option<String> {
    match text.trim() {
        // Linux says "(none)" where nobody has set a name.
        "" | "(none)" => None,
        name => Some(name.to_owned()),
    }
}

/// Why a daemon cannot go on. The first reason stands, and is logged. Clones share it.
#[derive(Clone, Debug)]
pub struct Failure {
    daemon: &'static str,
    why: watch::Sender<Option<String>>,
}

impl Failure {
    /// None yet, of the daemon of this name.
    pub fn new(daemon: &'static str) -> Self {
        Failure { daemon, why: watch::Sender::new(None) }
    }

    /// The daemon cannot go on.
    pub fn set(&self, why: impl Into<String>) {
        self.why.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                let why = why.into();
                tracing::error!(why, "{} cannot go on", self.daemon);
                *known = Some(why);
            }
            first
        });
    }

    /// Resolves when the daemon cannot go on, with the reason; at once if it has failed already.
    pub async fn wait(&self) -> String {
        let mut why = self.why.subscribe();
        // Cloned at once: the guard is not Send, and a match would keep it beyond the next await.
        let known = why.wait_for(Option::is_some).await.map(|why| why.clone());
        match known {
            Ok(why) => why.unwrap_or_default(),
            // The sender lives in self.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The servers and other tasks of one running daemon. Dropping it stops them without ceremony;
/// [`Tasks::end`] is clean.
#[derive(Debug)]
pub struct Tasks {
    failure: Failure,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Tasks {
    /// None yet; what makes one of them impossible goes into `failure`.
    pub fn new(failure: Failure) -> Self {
        Tasks { failure, stop: CancellationToken::new(), running: JoinSet::new() }
    }

    /// Cancelled when the tasks shall end; each sees to it that it does.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Runs a task, which is to end soon after [`Tasks::stop`].
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(task);
    }

    /// The failure of a part of the daemon is the daemon's. `part` resolves when it fails, and need
    /// not know of [`Tasks::stop`].
    pub fn fail_when(&mut self, part: impl Future<Output = String> + Send + 'static) {
        let (failure, stop) = (self.failure.clone(), self.stop.clone());
        self.running.spawn(async move {
            if let Some(why) = stop.run_until_cancelled_owned(part).await {
                failure.set(why);
            }
        });
    }

    /// Serves gRPC. `what` names the port in the failure that a server's error is.
    pub fn serve_rpc<S, C>(&mut self, what: &'static str, services: Router, incoming: S)
    where
        S: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        C::ConnectInfo: Clone + Send + Sync + 'static,
    {
        let stop = self.stop.clone().cancelled_owned();
        self.serve(what, services.serve_with_incoming_shutdown(incoming, stop));
    }

    /// Serves `/healthz` and `/metrics`.
    pub fn serve_http(&mut self, listener: TcpListener, registry: Registry, health: Health) {
        let stop = self.stop.clone().cancelled_owned();
        self.serve("HTTP", http::serve(listener, Arc::new(registry), health, stop));
    }

    /// A daemon that has lost a listener looks alive and is not: that is a failure.
    fn serve<E: Display>(
        &mut self,
        what: &'static str,
        server: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let failure = self.failure.clone();
        self.running.spawn(async move {
            if let Err(err) = server.await {
                failure.set(format!("the {what} server ended: {err}"));
            }
        });
    }

    /// Stops the tasks and waits for them, but not for ever: what takes too long is broken off.
    pub async fn end(&mut self) {
        self.stop.cancel();
        let drained = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("{}: some calls did not end in time", self.failure.daemon);
            self.running.shutdown().await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_configured_or_listened_on_is_advertised() {
        assert_eq!(advertised(Some("a.example:1"), addr("0.0.0.0:9860")), "a.example:1");
        assert_eq!(advertised(None, addr("127.0.0.1:9860")), "127.0.0.1:9860");
        let any = advertised(None, addr("0.0.0.0:9860"));
        assert!(any.ends_with(":9860") && !any.starts_with("0.0.0.0"), "{any}");
    }

    #[test]
    fn a_name_stands_for_all_addresses() {
        for (bound, host, expected) in [
            ("0.0.0.0:7", Some("m1"), "m1:7"),
            ("[::]:7", Some("m1"), "m1:7"),
            ("10.0.0.1:7", Some("m1"), "10.0.0.1:7"),
            ("0.0.0.0:7", None, "127.0.0.1:7"),
            ("[::]:7", None, "[::1]:7"),
        ] {
            assert_eq!(reachable(addr(bound), host.map(str::to_owned)), expected, "{bound}");
        }
    }

    #[test]
    fn no_name_is_none() {
        assert_eq!(parse_host_name("m1.example\n").as_deref(), Some("m1.example"));
        for text in ["", "\n", "(none)\n"] {
            assert_eq!(parse_host_name(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_lets_one_think_of_a_second_daemon() {
        let (_held, taken) = listen("metad", addr("127.0.0.1:0")).await.unwrap();
        let rpc = bind("metad", taken).await.err().unwrap().to_string();
        let http = listen("metad", taken).await.unwrap_err().to_string();
        for text in [rpc, http] {
            assert!(text.contains(&taken.to_string()), "{text}");
            assert!(text.ends_with("(another metad?)"), "{text}");
        }
        // An address for documentation: no machine has it.
        let foreign = bind("metad", addr("192.0.2.1:0")).await.err().unwrap().to_string();
        assert!(foreign.contains("192.0.2.1") && !foreign.contains("another"), "{foreign}");
    }

    #[tokio::test]
    async fn the_first_reason_stands() {
        let failure = Failure::new("metad");
        let early = tokio::spawn({
            let failure = failure.clone();
            async move { failure.wait().await }
        });
        tokio::task::yield_now().await;
        failure.clone().set("a disk");
        failure.set("its consequences");
        assert_eq!(early.await.unwrap(), "a disk");
        assert_eq!(failure.wait().await, "a disk");
    }

    #[tokio::test]
    async fn parts_and_servers_fail_the_daemon() {
        let mut tasks = Tasks::new(Failure::new("metad"));
        tasks.serve("data", async { Err("no more sockets") });
        assert_eq!(tasks.failure().wait().await, "the data server ended: no more sockets");

        let mut tasks = Tasks::new(Failure::new("metad"));
        tasks.fail_when(async { "the group".to_owned() });
        assert_eq!(tasks.failure().wait().await, "the group");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_clean_where_tasks_listen() {
        let mut tasks = Tasks::new(Failure::new("metad"));
        let (incoming, _) = bind("metad", addr("127.0.0.1:0")).await.unwrap();
        let (listener, _) = listen("metad", addr("127.0.0.1:0")).await.unwrap();
        let services = net::server().add_routes(tonic::service::Routes::default());
        tasks.serve_rpc("RPC", services, incoming);
        tasks.serve_http(listener, Registry::default(), Health::default());
        tasks.spawn(tasks.stop().clone().cancelled_owned());
        tasks.fail_when(pending());
        let start = tokio::time::Instant::now();
        tasks.end().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        let failed = tokio::time::timeout(Duration::from_secs(1), tasks.failure().wait()).await;
        assert!(failed.is_err(), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_wait_for_ever() {
        let mut tasks = Tasks::new(Failure::new("metad"));
        let held = Arc::new(());
        let inside = held.clone();
        tasks.spawn(async move {
            let _inside = inside;
            pending().await
        });
        let start = tokio::time::Instant::now();
        tasks.end().await;
        assert!(start.elapsed() >= DRAIN);
        assert_eq!(Arc::strong_count(&held), 1, "the task is gone");
    }

    #[tokio::test]
    async fn dropping_stops() {
        let tasks = Tasks::new(Failure::new("metad"));
        let stop = tasks.stop().clone();
        drop(tasks);
        assert!(stop.is_cancelled());
    }
}
