//! Which sessions of this host are alive: one locked file per session.
//!
//! A process holds a lock on its session's file for as long as it lives; the kernel drops the lock
//! with the process. A file whose lock can be taken therefore names a session whose process is
//! dead, and metad can end it at once instead of waiting for its lease.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The directory that all clients of this user on this host share.
#[derive(Debug)]
pub struct SessionDir {
    dir: PathBuf,
}

/// This process's session, for as long as it lives. A file that stays behind unlocked tells the next
/// client that the session's process is gone.
#[derive(Debug)]
pub struct SessionLock {
    path: PathBuf,
    _file: File,
}

impl SessionDir {
    /// `/run/ozone/sessions` for root, else under `$XDG_RUNTIME_DIR`, else under the temporary
    /// directory, per user.
    pub fn default_path() -> PathBuf {
        let uid = nix::unistd::geteuid();
        if uid.is_root() {
            return PathBuf::from("/run/ozone/sessions");
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) => Path::new(&dir).join("ozone"),
            None => std::env::temp_dir().join(format!("ozone-sessions-{uid}")),
        }
    }

    pub fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(SessionDir { dir })
    }

    /// Sessions of `cluster` whose process is dead. Their files stay until [`SessionDir::forget`].
    pub fn dead(&self, cluster: &str) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut dead = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(session) = name.to_str().and_then(|n| parse(n, cluster)) else { continue };
            let file = OpenOptions::new().read(true).write(true).open(entry.path());
            if file.is_ok_and(|file| file.try_lock().is_ok()) {
                dead.push(session);
            }
        }
        dead
    }

    /// metad knows that these are dead.
    pub fn forget(&self, cluster: &str, sessions: &[u64]) {
        for session in sessions {
            // A file that stays is only reported once more.
            let _ = std::fs::remove_file(self.path(cluster, *session));
        }
    }

    /// Marks `session` as alive.
    pub fn lock(&self, cluster: &str, session: u64) -> io::Result<SessionLock> {
        let path = self.path(cluster, session);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(SessionLock { path, _file: file }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(err)) => Err(err),
        }
    }

    fn path(&self, cluster: &str, session: u64) -> PathBuf {
        self.dir.join(format!("{}@{session}", clean(cluster)))
    }
}

impl SessionLock {
    /// metad knows that the session has ended.
    pub fn remove(self) {
        // If it cannot be removed, the next client reports it as dead once more.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The cluster as part of a file name.
fn clean(cluster: &str) -> String {
    cluster.chars().map(|c| if c == '/' || c == '@' || c == '\0' { '_' } else { c }).collect()
}

fn parse(name: &str, cluster: &str) -> Option<u64> {
    let (of, session) = name.rsplit_once('@')?;
    if of != clean(cluster) {
        return None;
    }
    session.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unlocked_files_of_the_cluster_are_dead() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = SessionDir::open(tmp.path().join("sessions")).unwrap();
        let alive = dir.lock("a:1", 7).unwrap();
        std::fs::write(tmp.path().join("sessions/a:1@8"), "").unwrap();
        std::fs::write(tmp.path().join("sessions/b:1@9"), "").unwrap();
        std::fs::write(tmp.path().join("sessions/readme"), "").unwrap();
        assert_eq!(dir.dead("a:1"), [8]);
        dir.forget("a:1", &[8]);
        assert!(dir.dead("a:1").is_empty());
        assert!(dir.lock("a:1", 7).is_err());
        drop(alive);
        assert_eq!(dir.dead("a:1"), [7], "gone without goodbye");
        dir.lock("a:1", 7).unwrap().remove();
        assert!(dir.dead("a:1").is_empty());
    }
}
