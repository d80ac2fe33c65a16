//! One metad, one containerd and three blockds in this process, on loopback.

use std::net::SocketAddr;
use std::path::Path;

use ozone_blockd::Blockd;
use ozone_containerd::Containerd;
use ozone_metad::Metad;
use ozone_platform::real_clock;
use ozone_types::{BucketName, ErrorCode, FsError, FsResult, VolumeName};
use serde::{Deserialize, Serialize};

use super::fail;
use crate::Failure;
use crate::cluster_client::Admin;
use crate::sh;

const BLOCKDS: usize = 3;
const PORTS: &str = "ports.toml";

/// The ports of the first start, used again by the next ones where they are still free.
#[derive(Serialize, Deserialize, Default, Clone, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Ports {
    metad: u16,
    metad_http: u16,
    containerd: u16,
    containerd_http: u16,
    blockd: [u16; BLOCKDS],
    blockd_http: [u16; BLOCKDS],
}

pub struct Cluster {
    metad: Metad,
    containerd: Containerd,
    blockds: Vec<Blockd>,
}

impl Cluster {
    /// Starts what is in `data`, or a new cluster where there is nothing, and makes the bucket.
    pub async fn start(data: &Path) -> Result<Self, Failure> {
        let file = data.join(PORTS);
        let ports = read_ports(&file).free();
        let config = ozone_containerd::Config {
            data_dir: data.join("containerd"),
            listen: loopback(ports.containerd),
            http_listen: loopback(ports.containerd_http),
            raft_listen: loopback(0),
            ..Default::default()
        };
        let containerd = Containerd::start(config, real_clock()).await.map_err(|e| fail(&e))?;
        let container_servers = vec![containerd.rpc_addr().to_string()];
        let mut blockds = Vec::with_capacity(BLOCKDS);
        for n in 0..BLOCKDS {
            let config = ozone_blockd::Config {
                data_dirs: vec![data.join(format!("blockd{}", n + 1))],
                listen: loopback(ports.blockd[n]),
                http_listen: loopback(ports.blockd_http[n]),
                containerd: container_servers.clone(),
                ..Default::default()
            };
            blockds.push(Blockd::start(config, real_clock()).await.map_err(|e| fail(&e))?);
        }
        let config = ozone_metad::Config {
            data_dir: data.join("metad"),
            listen: loopback(ports.metad),
            http_listen: loopback(ports.metad_http),
            raft_listen: loopback(0),
            containerd: container_servers,
            ..Default::default()
        };
        let metad = ozone_metad::start(config, real_clock()).await.map_err(|e| fail(&e))?;
        let cluster = Cluster { metad, containerd, blockds };
        cluster.write_ports(&file)?;
        cluster.make_bucket().await.map_err(|e| fail(&e))?;
        Ok(cluster)
    }

    pub fn metad_address(&self) -> String {
        self.metad.rpc_addr().to_string()
    }

    pub fn containerd_address(&self) -> String {
        self.containerd.rpc_addr().to_string()
    }

    /// When a daemon stops by itself: which, and why.
    pub async fn failed(&self) -> String {
        let [a, b, c] = &self.blockds[..] else {
            return "a block server is missing".to_owned();
        };
        tokio::select! {
            why = self.metad.failed() => format!("metad: {why}"),
            why = self.containerd.failed() => format!("containerd: {why}"),
            why = a.failed() => format!("blockd1: {why}"),
            why = b.failed() => format!("blockd2: {why}"),
            why = c.failed() => format!("blockd3: {why}"),
        }
    }

    pub async fn stop(self) {
        self.metad.shutdown().await;
        for blockd in self.blockds {
            blockd.shutdown().await;
        }
        self.containerd.shutdown().await;
    }

    async fn make_bucket(&self) -> FsResult<()> {
        let admin = Admin::new(vec![self.metad_address()])?;
        let volume = VolumeName::new("vol1")?;
        let bucket = BucketName::new("bucket1")?;
        unless_exists(sh::volume::create(&admin, sh::volume::new(&volume)).await)?;
        unless_exists(sh::bucket::create(&admin, sh::bucket::new(&volume, &bucket)).await)
    }

    fn write_ports(&self, file: &Path) -> Result<(), Failure> {
        let mut ports = Ports {
            metad: self.metad.rpc_addr().port(),
            metad_http: self.metad.http_addr().port(),
            containerd: self.containerd.rpc_addr().port(),
            containerd_http: self.containerd.http_addr().port(),
            ..Default::default()
        };
        for (n, blockd) in self.blockds.iter().enumerate() {
            ports.blockd[n] = blockd.rpc_addr().port();
            ports.blockd_http[n] = blockd.http_addr().port();
        }
        let text = toml::to_string(&ports).map_err(|e| fail(&e))?;
        std::fs::write(file, text).map_err(|e| fail(&format!("{}: {e}", file.display())))
    }
}

fn unless_exists(made: FsResult<()>) -> FsResult<()> {
    let exists =
        |e: &FsError| matches!(e.code(), ErrorCode::VolumeExists | ErrorCode::BucketExists);
    match made {
        Err(e) if exists(&e) => Ok(()),
        other => other,
    }
}

/// The ports are a convenience: a damaged file means new ones.
fn read_ports(file: &Path) -> Ports {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    toml::from_str(&text).unwrap_or_default()
}

impl Ports {
    /// With 0 (take a free one) in place of each port that somebody else has taken meanwhile.
    fn free(mut self) -> Self {
        let all = [
            &mut self.metad,
            &mut self.metad_http,
            &mut self.containerd,
            &mut self.containerd_http,
        ];
        for port in all.into_iter().chain(&mut self.blockd).chain(&mut self.blockd_http) {
            if std::net::TcpListener::bind(loopback(*port)).is_err() {
                *port = 0;
            }
        }
        self
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
