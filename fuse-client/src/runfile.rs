//! A file per mount under /run, by which `umount` waits for the mount process and learns how it ended.
//!
//! The process holds an exclusive lock on the file for as long as it lives, and writes its state into
//! it. The file is named after the device number of the mount, which is unique while it is mounted;
//! what an earlier mount left under the same number is overwritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, geteuid};
use serde::{Deserialize, Serialize};

/// Where the mount process is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Mounted,
    /// Unmounted by the kernel; what is dirty is on its way to the servers.
    Flushing,
    Done,
    /// Written data may be lost, for this reason.
    Failed(String),
}

/// What the file holds, as TOML.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub pid: u32,
    pub source: String,
    pub mountpoint: PathBuf,
    pub state: State,
}

/// The directory of a user's files: /run/ozone, or /run/user/UID/ozone.
fn directory(uid: Uid) -> PathBuf {
    match uid.is_root() {
        true => PathBuf::from("/run/ozone/mounts"),
        false => PathBuf::from(format!("/run/user/{uid}/ozone/mounts")),
    }
}

/// The file of a mount by `user` whose device number is `device` (`major:minor`).
pub(crate) fn path(user: Uid, device: &str) -> PathBuf {
    directory(user).join(device)
}

/// Where a mount's socket may be, in the order in which they are tried: beside its run file, or, where
/// this user's runtime directory is another, there.
pub(crate) fn sockets(user: Uid, device: &str) -> Vec<PathBuf> {
    let mut directories = vec![directory(user)];
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| user == geteuid() && !user.is_root());
    directories.extend(own.map(|runtime| PathBuf::from(runtime).join("ozone/mounts")));
    directories.into_iter().map(|directory| directory.join(format!("{device}.sock"))).collect()
}

/// The mount process's side.
pub(crate) struct RunFile {
    file: Flock<File>,
    path: PathBuf,
    record: Record,
}

impl RunFile {
    /// Errors: of the filesystem; ordinary users may have no /run/user. A mount does without, then.
    pub fn create(device: &str, record: Record) -> io::Result<RunFile> {
        let path = path(geteuid(), device);
        Self::create_at(path, record)
    }

    fn create_at(path: PathBuf, record: Record) -> io::Result<RunFile> {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        // A new file, so that who still reads an old one is not confused.
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, err)| err)?;
        let mut run = RunFile { file, path, record };
        run.save()?;
        Ok(run)
    }

    pub fn set(&mut self, state: State) -> io::Result<()> {
        self.record.state = state;
        self.save()
    }

    fn save(&mut self) -> io::Result<()> {
        let text = toml::to_string(&self.record).map_err(io::Error::other)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }
}

impl Drop for RunFile {
    /// A failure stays behind for whoever looks for it; a good end leaves nothing. Whoever has the
    /// file open reads it all the same.
    fn drop(&mut self) {
        if self.record.state == State::Done {
            remove(&self.path, &self.file);
        }
    }
}

/// Removes the file if `path` still names it. If it stays, the next mount with its number replaces it.
fn remove(path: &Path, file: &File) {
    if let (Ok(named), Ok(ours)) = (path.metadata(), file.metadata())
        && named.ino() == ours.ino()
    {
        let _ = std::fs::remove_file(path);
    }
}

/// The side of who unmounts: opened before it does.
pub(crate) struct Watch {
    file: File,
    path: PathBuf,
}

impl Watch {
    /// `None` if the mount has no file.
    pub fn open(path: &Path) -> io::Result<Option<Watch>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Watch { file, path: path.to_owned() })),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    pub fn record(&mut self) -> io::Result<Record> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        toml::from_str(&text).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
    }

    /// Removes what a mount process that has ended left behind, once its user has been told.
    pub fn told(&self) {
        remove(&self.path, &self.file);
    }

    /// Whether the mount process has ended.
    pub fn ended(&self) -> io::Result<bool> {
        let file = self.file.try_clone()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_unlocked_again) => Ok(true),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(false),
            Err((_, err)) => Err(err.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            pid: 7,
            source: "h:/vol1/bucket1".to_owned(),
            mountpoint: PathBuf::from("/mnt"),
            state: State::Mounted,
        }
    }

    #[test]
    fn a_good_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/0:5");
        let mut run = RunFile::create_at(path.clone(), record()).unwrap();
        let mut watch = Watch::open(&path).unwrap().unwrap();
        assert!(!watch.ended().unwrap());
        assert_eq!(watch.record().unwrap(), record());
        run.set(State::Flushing).unwrap();
        assert_eq!(watch.record().unwrap().state, State::Flushing);
        run.set(State::Done).unwrap();
        drop(run);
        assert!(watch.ended().unwrap());
        assert_eq!(watch.record().unwrap().state, State::Done);
        assert!(Watch::open(&path).unwrap().is_none());
    }

    #[test]
    fn a_failure_stays_until_the_number_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0:5");
        let mut run = RunFile::create_at(path.clone(), record()).unwrap();
        run.set(State::Failed("no \"server\"\nanswers".to_owned())).unwrap();
        drop(run);
        let mut watch = Watch::open(&path).unwrap().unwrap();
        assert!(watch.ended().unwrap());
        let state = watch.record().unwrap().state;
        assert_eq!(state, State::Failed("no \"server\"\nanswers".to_owned()));
        let next = RunFile::create_at(path.clone(), record()).unwrap();
        assert!(watch.ended().unwrap(), "the old file's end is not taken back");
        assert!(!Watch::open(&path).unwrap().unwrap().ended().unwrap());
        watch.told();
        assert!(path.exists(), "it is another mount's by now");
        drop(next);
        Watch::open(&path).unwrap().unwrap().told();
        assert!(!path.exists());
    }
}
