//! Which cluster this metad belongs to, and its secret: from containerd at first, then from
//! `cluster.key` (docs/format/metad_identity.md).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{DataDir, Disk, OpenMode};
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::containerd::{AttachReply, AttachRequest};
use ozone_rpc::Retry;
use ozone_rpc::http::Health;
use ozone_rpc::token::TokenKey;
use ozone_types::{ClusterId, ErrorCode, FsError, FsResult};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::node::{Identity, Node};

const FILE: &str = "cluster.key";
const TMP: &str = "cluster.key.tmp";
const MAGIC: [u8; 8] = *b"OZMKEY\0\x01";
const BODY: usize = 56;
const LEN: usize = BODY + 32;

const ATTACH: Retry =
    Retry { deadline: Duration::from_secs(5), attempt: Duration::from_secs(2), idempotent: true };
const PAUSE: Duration = Duration::from_millis(500);
/// Between two lines in the log that say the same.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What was saved; `None` before containerd has first answered.
pub fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Identity>> {
    let path = dir.join(FILE);
    if !disk.exists(&path) {
        return Ok(None);
    }
    let file = disk.open(&path, OpenMode::Read)?;
    let mut bytes = vec![0; LEN];
    let whole = file.len()? == LEN as u64;
    if whole {
        file.read_exact_at(&mut bytes, 0)?;
    }
    match whole.then(|| decode(&bytes)).flatten() {
        Some(identity) => Ok(Some(identity)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is damaged or of another version; remove it and restart", path.display()),
        )),
    }
}

fn decode(bytes: &[u8]) -> Option<Identity> {
    let (body, digest) = bytes.split_at_checked(BODY)?;
    if body[..8] != MAGIC || Sha256::digest(body).as_slice() != digest {
        return None;
    }
    Some(Identity {
        cluster: ClusterId::from_slice(&body[8..24])?,
        key: TokenKey::from_slice(&body[24..]).ok()?,
    })
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(identity.cluster.as_bytes());
    bytes.extend_from_slice(identity.key.as_bytes());
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Atomic and durable.
pub fn save(disk: &dyn Disk, dir: &Path, identity: &Identity) -> io::Result<()> {
    let tmp = dir.join(TMP);
    let file = disk.open(&tmp, OpenMode::Create)?;
    // Before the secret is in it.
    if tmp.exists() {
        std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o600))?;
    }
    file.set_len(0)?;
    file.write_all_at(&encode(identity), 0)?;
    file.sync_data()?;
    disk.rename(&tmp, &dir.join(FILE))?;
    disk.sync_dir(dir)
}

/// Asks containerd until it has answered once. A cluster other than the data directory's stops the
/// node.
pub async fn attach(node: Arc<Node>, disk: Arc<dyn Disk>, dir: Arc<DataDir>, health: Health) {
    let mut logged: Option<Instant> = None;
    loop {
        let err = match ask(&node, &dir).await.and_then(|r| accept(&node, &*disk, &dir, &r)) {
            Ok(()) => {
                health.set_ok();
                return;
            }
            Err(err) if err.code() == ErrorCode::WrongCluster => {
                node.failure.set(err.detail());
                return;
            }
            Err(err) => err,
        };
        if node.identity.get().is_none() {
            health.set_bad(format!("waiting for containerd: {err}"));
        }
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            logged = Some(Instant::now());
            tracing::warn!(servers = ?node.config.containerd, %err, "containerd does not answer");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(node: &Node, dir: &DataDir) -> FsResult<AttachReply> {
    let cluster = dir.cluster().map(ClusterId::to_vec).unwrap_or_default();
    let request = AttachRequest { cluster };
    node.containerd
        .call(ATTACH, |channel| {
            let request = request.clone();
            async move { ContainerdClient::new(channel).attach(request).await }
        })
        .await
        .map_err(|err| match err.code() {
            ErrorCode::WrongCluster => FsError::with(
                ErrorCode::WrongCluster,
                format!(
                    "{} belongs to another cluster than containerd: {}",
                    dir.path().display(),
                    err.detail()
                ),
            ),
            _ => err,
        })
}

fn accept(node: &Node, disk: &dyn Disk, dir: &DataDir, reply: &AttachReply) -> FsResult<()> {
    let cluster = ClusterId::from_slice(&reply.cluster)
        .ok_or_else(|| FsError::with(ErrorCode::Protocol, "containerd named no cluster"))?;
    dir.bind_cluster(cluster)
        .map_err(|err| FsError::with(ErrorCode::WrongCluster, err.to_string()))?;
    let key = TokenKey::from_slice(&reply.token_key)?;
    match node.identity.get() {
        Some(known) if known.key.as_bytes() == key.as_bytes() => Ok(()),
        Some(_) => Err(FsError::with(
            ErrorCode::WrongCluster,
            format!("containerd's token key is not the one saved in {}", dir.path().display()),
        )),
        None => {
            let identity = Identity { cluster, key };
            save(disk, dir.path(), &identity)?;
            node.identify(identity);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_platform::{random, std_disk};

    #[test]
    fn an_identity_survives_and_garbage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = std_disk();
        assert!(load(&*disk, dir.path()).unwrap().is_none());
        let identity =
            Identity { cluster: ClusterId(random::uuid()), key: TokenKey::new(random::bytes()) };
        save(&*disk, dir.path(), &identity).unwrap();
        let back = load(&*disk, dir.path()).unwrap().unwrap();
        assert_eq!(back.cluster, identity.cluster);
        assert_eq!(back.key.as_bytes(), identity.key.as_bytes());
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(load(&*disk, dir.path()).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(load(&*disk, dir.path()).is_err(), "cut at {at}");
        }
    }
}
