//! The directory that a daemon owns: whose it is, and that nobody else uses it.
//!
//! docs/format/datadir.md describes the two files VERSION and LOCK.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ozone_types::ClusterId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::OpenMode;
use crate::{random, std_disk};

/// The format of data directories that this version writes.
const FORMAT: u32 = 1;
const VERSION: &str = "VERSION";
const VERSION_TMP: &str = "VERSION.tmp";
const LOCK: &str = "LOCK";

/// Which daemon a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Metad,
    Containerd,
    Blockd,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Metad => "metad",
            Role::Containerd => "containerd",
            Role::Blockd => "blockd",
        })
    }
}

/// Why a data directory cannot be used. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "data directory {path} is not empty and has no VERSION file, so it is not Ozone's \
         (found '{found}'); choose an empty or new directory"
    )]
    Foreign { path: String, found: String },
    #[error("data directory {path} belongs to {found}, not to {wanted}")]
    OtherRole { path: String, found: Role, wanted: Role },
    #[error(
        "data directory {path} has format {found}; this version of Ozone knows format {known}: \
         start the version that wrote it"
    )]
    UnknownFormat { path: String, found: u32, known: u32 },
    #[error("{path} is damaged: {why}")]
    Damaged { path: String, why: String },
    #[error("data directory {path} is in use by {holder}")]
    InUse { path: String, holder: String },
    #[error(
        "data directory {path} belongs to cluster {found}, but the servers are of cluster {wanted}"
    )]
    OtherCluster { path: String, found: ClusterId, wanted: ClusterId },
    #[error("data directory {path}: {source}")]
    Io { path: String, source: io::Error },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    format: u32,
    role: Role,
    id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterId>,
}

/// A data directory in use by this process; others are kept out until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    version: Mutex<Version>,
    _lock: Flock<File>,
}

impl DataDir {
    /// Takes a directory for the daemon `role`; creates it if it is missing, marks it if it is
    /// empty. Whatever else is wrong with it is an error, and then nothing has been changed.
    pub fn open(path: impl AsRef<Path>, role: Role) -> Result<DataDir, DataDirError> {
        let path = path.as_ref();
        if !path.join(VERSION).exists() {
            refuse_foreign(path)?;
            std_disk().create_dir_all(path).map_err(|e| io_error(path, e))?;
        } else {
            // Before LOCK is created or opened: a directory of another role is not touched.
            read_version(path, role)?;
        }
        let lock = take_lock(path)?;
        let version = match read_version(path, role)? {
            Some(version) => version,
            None => {
                let version = Version { format: FORMAT, role, id: random::uuid(), cluster: None };
                write_version(path, &version)?;
                version
            }
        };
        Ok(DataDir { path: path.to_owned(), version: Mutex::new(version), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This daemon's id, made when the directory was first used.
    pub fn id(&self) -> Uuid {
        self.version.lock().id
    }

    /// The cluster that the directory belongs to, once it is known.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.version.lock().cluster
    }

    /// Ties the directory to a cluster, durably; later only the same cluster is accepted.
    pub fn bind_cluster(&self, cluster: ClusterId) -> Result<(), DataDirError> {
        let mut version = self.version.lock();
        match version.cluster {
            Some(bound) if bound == cluster => Ok(()),
            Some(found) => Err(DataDirError::OtherCluster {
                path: self.path.display().to_string(),
                found,
                wanted: cluster,
            }),
            None => {
                let bound = Version { cluster: Some(cluster), ..version.clone() };
                write_version(&self.path, &bound)?;
                *version = bound;
                Ok(())
            }
        }
    }
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io { path: path.display().to_string(), source }
}

/// An existing directory without VERSION must be empty, but for what an interrupted first start
/// and mkfs leave.
fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    if !path.exists() {
        return Ok(());
    }
    let ours = [VERSION, VERSION_TMP, LOCK, "lost+found"];
    let names = std_disk().list(path).map_err(|e| io_error(path, e))?;
    match names.iter().find(|name| !ours.iter().any(|o| OsStr::new(o) == name.as_os_str())) {
        None => Ok(()),
        Some(found) => Err(DataDirError::Foreign {
            path: path.display().to_string(),
            found: found.to_string_lossy().into_owned(),
        }),
    }
}

/// The lock is the kernel's flock and goes with the process, however it ends; the text in the
/// file only tells people whose it is.
fn take_lock(dir: &Path) -> Result<Flock<File>, DataDirError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(|e| io_error(&path, e))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            let text = format!("{}\n", std::process::id());
            lock.set_len(0)
                .and_then(|()| lock.write_all_at(text.as_bytes(), 0))
                .map_err(|e| io_error(&path, e))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            // Without a readable pid the refusal is still right, only less helpful.
            let _ = file.by_ref().take(32).read_to_string(&mut text);
            let holder = match text.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            Err(DataDirError::InUse { path: dir.display().to_string(), holder })
        }
        Err((_, errno)) => Err(io_error(&path, errno.into())),
    }
}

/// `None` if there is no VERSION. The format is looked at first: a later one may mean anything.
fn read_version(dir: &Path, role: Role) -> Result<Option<Version>, DataDirError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let path = dir.join(VERSION);
    let damaged = |why: String| DataDirError::Damaged { path: path.display().to_string(), why };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(damaged(e.to_string())),
        Err(e) => return Err(io_error(&path, e)),
    };
    let Format { format } = toml::from_str(&text).map_err(|e| damaged(e.message().to_owned()))?;
    let dir = || dir.display().to_string();
    if format != FORMAT {
        return Err(DataDirError::UnknownFormat { path: dir(), found: format, known: FORMAT });
    }
    let version: Version = toml::from_str(&text).map_err(|e| damaged(e.message().to_owned()))?;
    if version.role != role {
        return Err(DataDirError::OtherRole { path: dir(), found: version.role, wanted: role });
    }
    Ok(Some(version))
}

/// Atomic and durable: a crash leaves the old file, or the new one.
fn write_version(dir: &Path, version: &Version) -> Result<(), DataDirError> {
    let write = || -> io::Result<()> {
        let body = toml::to_string(version).map_err(io::Error::other)?;
        let text = format!("# The identity of this Ozone data directory. Do not edit.\n{body}");
        let disk = std_disk();
        let tmp = dir.join(VERSION_TMP);
        let file = disk.open(&tmp, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(&tmp, &dir.join(VERSION))?;
        disk.sync_dir(dir)
    };
    write().map_err(|e| io_error(dir, e))
}

#[cfg(test)]
mod tests;
