//! Which disk a directory is: the file DISK.

use std::io;
use std::path::{Path, PathBuf};

use ozone_platform::{Disk, OpenMode, random};
use ozone_types::{BlockdId, DiskId};
use serde::{Deserialize, Serialize};

use super::recover::{CONTAINERS, INDEX, INDEX_NEW, JOURNAL};

const FORMAT: u32 = 1;
const DISK: &str = "DISK";
const DISK_TMP: &str = "DISK.tmp";
/// What else may be in a directory that is no disk yet.
const ALLOWED: &[&str] =
    &["VERSION", "VERSION.tmp", "LOCK", "lost+found", "token_key", "token_key.tmp", DISK_TMP];

/// Why a directory cannot be used as a disk. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error(
        "data directory {path} is not empty and has no DISK file, so it is not a disk of a blockd \
         (found '{found}'); choose an empty or new directory"
    )]
    Foreign { path: PathBuf, found: String },
    #[error("data directory {path} belongs to blockd {found}, not to {wanted}")]
    OtherBlockd { path: PathBuf, found: BlockdId, wanted: BlockdId },
    #[error(
        "data directory {path} has disk format {found}; this version of Ozone knows format \
         {FORMAT}: start the version that wrote it"
    )]
    UnknownFormat { path: PathBuf, found: u32 },
    #[error("{path} is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("data directory {path} has lost its index ({INDEX})")]
    IndexMissing { path: PathBuf, disk: DiskId },
    #[error("data directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("data directory {path} cannot be opened: {source}")]
    Unusable { path: PathBuf, disk: Option<DiskId>, source: io::Error },
}

impl DiskError {
    /// The wrong directory was configured: somebody has to look, and nothing must be started.
    pub fn is_mistake(&self) -> bool {
        match self {
            DiskError::Foreign { .. }
            | DiskError::OtherBlockd { .. }
            | DiskError::UnknownFormat { .. } => true,
            DiskError::Damaged { .. }
            | DiskError::IndexMissing { .. }
            | DiskError::Io { .. }
            | DiskError::Unusable { .. } => false,
        }
    }

    /// Which disk it is, where that could be told.
    pub fn disk(&self) -> Option<DiskId> {
        match self {
            DiskError::IndexMissing { disk, .. } => Some(*disk),
            DiskError::Unusable { disk, .. } => *disk,
            DiskError::Foreign { .. }
            | DiskError::OtherBlockd { .. }
            | DiskError::UnknownFormat { .. }
            | DiskError::Damaged { .. }
            | DiskError::Io { .. } => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    disk: DiskId,
    blockd: BlockdId,
}

/// The disk that `dir` is; `None` if it is empty or missing, and may become one.
pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    blockd: BlockdId,
) -> Result<Option<DiskId>, DiskError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let io_error = |source| DiskError::Io { path: dir.to_owned(), source };
    let path = dir.join(DISK);
    if !disk.exists(&path) {
        return refuse_foreign(disk, dir).map(|()| None);
    }
    let damaged = |why: String| DiskError::Damaged { path: path.clone(), why };
    let file = disk.open(&path, OpenMode::Read).map_err(io_error)?;
    let mut bytes = vec![0; file.len().map_err(io_error)?.min(4096) as usize];
    file.read_exact_at(&mut bytes, 0).map_err(io_error)?;
    let text = String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
    let Format { format } = toml::from_str(&text).map_err(|e| damaged(e.message().to_owned()))?;
    if format != FORMAT {
        return Err(DiskError::UnknownFormat { path: dir.to_owned(), found: format });
    }
    let found: Identity = toml::from_str(&text).map_err(|e| damaged(e.message().to_owned()))?;
    if found.blockd != blockd {
        let (path, found) = (dir.to_owned(), found.blockd);
        return Err(DiskError::OtherBlockd { path, found, wanted: blockd });
    }
    if !disk.exists(&dir.join(INDEX)) {
        return Err(DiskError::IndexMissing { path: dir.to_owned(), disk: found.disk });
    }
    Ok(Some(found.disk))
}

/// A first start that was interrupted leaves index and journal, but nothing in containers.
fn refuse_foreign(disk: &dyn Disk, dir: &Path) -> Result<(), DiskError> {
    if !disk.exists(dir) {
        return Ok(());
    }
    let list = |dir: &Path| {
        disk.list(dir).map_err(|source| DiskError::Io { path: dir.to_owned(), source })
    };
    let names = list(dir)?;
    let containers = dir.join(CONTAINERS);
    let interrupted = !disk.exists(&containers) || list(&containers)?.is_empty();
    let is_ours = |name: &str| {
        let half_made = [INDEX, INDEX_NEW, JOURNAL, CONTAINERS].contains(&name);
        ALLOWED.contains(&name) || interrupted && half_made
    };
    match names.iter().map(|name| name.to_string_lossy()).find(|name| !is_ours(name)) {
        None => Ok(()),
        Some(found) => Err(DiskError::Foreign { path: dir.to_owned(), found: found.into_owned() }),
    }
}

/// Makes room for a new disk in `dir`: removes what an interrupted first start left.
pub(super) fn clear(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    if disk.exists(&dir.join(INDEX)) {
        disk.remove(&dir.join(INDEX))?;
    }
    if disk.exists(&dir.join(JOURNAL)) {
        disk.remove_dir_all(&dir.join(JOURNAL))?;
    }
    disk.sync_dir(dir)
}

/// Makes `dir` a disk, with an id of its own. Atomic and durable.
pub(super) fn write(disk: &dyn Disk, dir: &Path, blockd: BlockdId) -> io::Result<DiskId> {
    let identity = Identity { format: FORMAT, disk: DiskId(random::uuid()), blockd };
    let body = toml::to_string(&identity).map_err(io::Error::other)?;
    let text =
        format!("# The identity of this disk of an Ozone block server. Do not edit.\n{body}");
    let tmp = dir.join(DISK_TMP);
    let file = disk.open(&tmp, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(&tmp, &dir.join(DISK))?;
    disk.sync_dir(dir)?;
    Ok(identity.disk)
}
