//! What metad says of itself: memory, disk, checkpoints.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use ozone_proto::metad::UsageRequest;

use crate::Failure;
use crate::cluster_client::{Admin, MetadAddress};

const HTTP_PORT: u16 = 9874;
const PATIENCE: Duration = Duration::from_secs(5);

/// metad's HTTP port.
#[derive(Clone, Debug)]
pub struct Server {
    address: String,
}

/// Bytes, but for the checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerState {
    pub resident: u64,
    pub tables: u64,
    pub log: u64,
    pub overlay: u64,
    pub inodes: u64,
    pub checkpoints: u64,
    pub checkpoint_seconds: f64,
    pub checkpoint_running: bool,
}

impl Server {
    /// Where it is told to be, or beside the first of metad's RPC addresses.
    pub fn new(told: Option<&str>, metad: &[String]) -> Result<Server, Failure> {
        let beside = || {
            let (host, _) = metad.first()?.rsplit_once(':')?;
            Some(format!("{host}:{HTTP_PORT}"))
        };
        let address = told.map(str::to_owned).or_else(beside);
        let missing = || Failure::new(2, "ozone freon scale: --metad-http is needed");
        Ok(Server { address: address.ok_or_else(missing)? })
    }

    /// `None`, with a word about it, where the port does not answer.
    pub fn state(&self) -> Option<ServerState> {
        self.ask().inspect_err(|err| eprintln!("metad's metrics at {}: {err}", self.address)).ok()
    }

    /// As [`Server::state`], where nothing can be done without it.
    pub fn need(&self) -> Result<ServerState, Failure> {
        self.ask().map_err(|err| {
            let what = format!("metad's metrics at {}: {err}", self.address);
            Failure::new(1, format!("ozone freon scale: {what} (--metad-http)"))
        })
    }

    fn ask(&self) -> io::Result<ServerState> {
        let at = self.address.to_socket_addrs()?.next();
        let at = at.ok_or_else(|| io::Error::other("the host has no address"))?;
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: metad\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        parse(&text).ok_or_else(|| io::Error::other("no metrics of metad"))
    }
}

fn parse(text: &str) -> Option<ServerState> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("ozone_metad_")?.split_once(' '));
    let values: HashMap<&str, f64> =
        lines.filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect();
    // None of them is negative or beyond 2⁵³.
    let number = |name| values.get(name).map(|value| *value as u64);
    Some(ServerState {
        resident: number("resident_bytes")?,
        tables: number("tables_bytes")?,
        log: number("raft_log_bytes")?,
        overlay: number("overlay_bytes")?,
        inodes: number("inodes")?,
        checkpoints: number("raft_checkpoints")?,
        checkpoint_seconds: *values.get("raft_checkpoint_seconds")?,
        checkpoint_running: number("raft_checkpoint_running")? != 0,
    })
}

/// Has metad make a checkpoint, which counting what is in an empty directory costs.
pub async fn checkpoint(
    metad: &MetadAddress,
    (volume, bucket): (&str, &str),
    prefix: &str,
) -> Result<(), Failure> {
    let admin = Admin::new(metad.resolve()?)?;
    let request = UsageRequest {
        volume: volume.to_owned(),
        bucket: bucket.to_owned(),
        path: format!("{prefix}/empty"),
        ..UsageRequest::default()
    };
    let mut counted = admin
        .call(|mut a| {
            let request = request.clone();
            async move { a.usage(request).await }
        })
        .await?;
    let failed = |status| Failure::from(ozone_proto::status::from_status(&status));
    while counted.message().await.map_err(failed)?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP x\nozone_metad_resident_bytes 10\n\
            ozone_metad_tables_bytes 20\nozone_metad_raft_log_bytes 30\nozone_metad_overlay_bytes 4\n\
            ozone_metad_inodes 5\nozone_metad_raft_checkpoints 6\nozone_metad_raft_checkpoint_running 1\n\
            ozone_metad_raft_checkpoint_seconds 0.25\nozone_metad_errors_total{method=\"x\"} 1\n";
        let state = parse(text).unwrap();
        assert_eq!((state.resident, state.tables, state.inodes), (10, 20, 5));
        assert_eq!((state.checkpoints, state.checkpoint_seconds), (6, 0.25));
        assert!(state.checkpoint_running);
        assert_eq!(parse("HTTP/1.1 404 Not Found\r\n\r\n"), None);
        let beside = Server::new(None, &["host:9862".to_owned()]).unwrap();
        assert_eq!(beside.address, "host:9874");
    }
}
