//! The side of who looks: finds a mount's socket by its mountpoint, and asks. It must work when the
//! mount hangs, so nothing here touches the mount: not its root, and nothing inside.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;

use super::{Answer, Asked, Request, VERSION};
use crate::runfile;
use crate::system::{self, MountEntry};

/// A mount's process answers at once; one that does not is stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Symbolic links on the way to a mountpoint, as in the kernel.
const LINKS_MAX: usize = 40;

/// Why a mount cannot be looked into. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("{}: {cause}", path.display())]
    Path { path: PathBuf, cause: io::Error },
    #[error("{} is not a mount of Ozone FS{}", path.display(), instead(mounts))]
    NotMounted { path: PathBuf, mounts: Vec<PathBuf> },
    #[error(
        "{} lies in the mount {}: name that one", path.display(), mountpoint.display()
    )]
    Inside { path: PathBuf, mountpoint: PathBuf },
    #[error(
        "the process of the mount {} has died; take the mount away with: umount -l {}",
        mountpoint.display(), mountpoint.display()
    )]
    Dead { mountpoint: PathBuf },
    #[error(
        "the mount {} belongs to the user with id {user}: only that user and root may look into it",
        mountpoint.display()
    )]
    Denied { mountpoint: PathBuf, user: u32 },
    #[error("the process of the mount {} does not answer", mountpoint.display())]
    Silent { mountpoint: PathBuf },
    #[error("the mount {} ended meanwhile", mountpoint.display())]
    Ended { mountpoint: PathBuf },
    #[error("the mount {} refuses: {text}", mountpoint.display())]
    Refused { mountpoint: PathBuf, text: String },
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
}

fn instead(mounts: &[PathBuf]) -> String {
    let list: Vec<String> = mounts.iter().map(|path| path.display().to_string()).collect();
    match list.is_empty() {
        true => String::new(),
        false => format!("; these are: {}", list.join(", ")),
    }
}

/// A mount that was found.
#[derive(Clone, Debug)]
pub struct Target {
    pub mountpoint: PathBuf,
    pub source: String,
    /// The kernel's options, those of the mount first.
    pub options: String,
    device: String,
    owner: Uid,
}

impl Target {
    fn new(entry: MountEntry) -> Target {
        let owner = entry.owner();
        Target {
            options: format!("{},{}", entry.options, entry.super_options),
            mountpoint: entry.mountpoint,
            source: entry.source,
            device: entry.device,
            owner,
        }
    }

    /// Asks for one thing; what comes back is read from the answer.
    pub fn ask(&self, request: Request) -> Result<Asking, LookError> {
        let mut stream = self.connect()?;
        let failed = |cause: io::Error| self.failed(cause);
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let asked = serde_json::to_string(&Asked { version: VERSION, request });
        let line = asked.map_err(|err| failed(err.into()))? + "\n";
        stream.write_all(line.as_bytes()).map_err(failed)?;
        Ok(Asking { target: self.clone(), lines: BufReader::new(stream) })
    }

    fn connect(&self) -> Result<UnixStream, LookError> {
        let mountpoint = self.mountpoint.clone();
        let mut last = None;
        for path in runfile::sockets(self.owner, &self.device) {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(stream),
                Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(LookError::Denied { mountpoint, user: self.owner.as_raw() });
                }
                Err(err) if err.kind() == io::ErrorKind::NotFound && last.is_some() => {}
                Err(err) => last = Some(err),
            }
        }
        match last {
            Some(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
                Err(LookError::Dead { mountpoint })
            }
            Some(cause) => Err(LookError::System { what: "no socket of the mount", cause }),
            None => Err(LookError::Dead { mountpoint }),
        }
    }

    fn failed(&self, cause: io::Error) -> LookError {
        let mountpoint = self.mountpoint.clone();
        match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LookError::Silent { mountpoint },
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => LookError::Ended { mountpoint },
            _ => LookError::System { what: "the mount's socket", cause },
        }
    }
}

/// An answer on its way.
pub struct Asking {
    target: Target,
    lines: BufReader<UnixStream>,
}

impl Asking {
    /// The next line of the answer. [`LookError::Ended`] when the mount has gone.
    pub fn line(&mut self) -> Result<Answer, LookError> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).map_err(|cause| self.target.failed(cause))?;
        if read == 0 {
            return Err(LookError::Ended { mountpoint: self.target.mountpoint.clone() });
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Error(text)) => {
                Err(LookError::Refused { mountpoint: self.target.mountpoint.clone(), text })
            }
            Ok(answer) => Ok(answer),
            Err(err) => Err(self.target.failed(err.into())),
        }
    }

    /// From now on the next line may be waited for as long as it takes.
    pub fn wait_for_ever(&mut self) -> Result<(), LookError> {
        self.lines.get_ref().set_read_timeout(None).map_err(|cause| self.target.failed(cause))
    }
}

/// Finds the mount by its mountpoint.
pub fn find(path: &Path) -> Result<Target, LookError> {
    let mounts = system::mounts()
        .map_err(|cause| LookError::System { what: "cannot read /proc/self/mountinfo", cause })?;
    let entry = find_in(path, &mounts)?;
    Ok(Target::new(entry))
}

fn find_in(path: &Path, mounts: &[MountEntry]) -> Result<MountEntry, LookError> {
    let named = || path.to_owned();
    let fails = |cause| LookError::Path { path: named(), cause };
    // What is mounted there last is what one sees there.
    let at = |place: &Path| mounts.iter().rfind(|entry| entry.mountpoint == place);
    let ours = |entry: &&MountEntry| entry.fs_type == system::FS_TYPE;
    let absolute = std::path::absolute(path).map_err(fails)?;
    let mut left: VecDeque<OsString> = components(&absolute);
    let (mut place, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            place.pop();
            continue;
        }
        let next = place.join(&name);
        if let Some(entry) = at(&next).filter(ours) {
            if left.is_empty() {
                return Ok(entry.clone());
            }
            return Err(LookError::Inside { path: named(), mountpoint: next });
        }
        match std::fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(fails(io::Error::from_raw_os_error(libc::ELOOP)));
                }
                if target.is_absolute() {
                    place = PathBuf::from("/");
                }
                for name in components(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            // It is no link.
            Err(err) if err.kind() == io::ErrorKind::InvalidInput => place = next,
            Err(err) => return Err(fails(err)),
        }
    }
    let mut mounts: Vec<PathBuf> =
        mounts.iter().filter(ours).map(|entry| entry.mountpoint.clone()).collect();
    mounts.dedup();
    Err(LookError::NotMounted { path: named(), mounts })
}

fn components(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn entry(mountpoint: &Path, fs_type: &str) -> MountEntry {
        MountEntry {
            device: "0:53".to_owned(),
            mountpoint: mountpoint.to_owned(),
            options: "rw".to_owned(),
            fs_type: fs_type.to_owned(),
            source: "h:/vol1/bucket1".to_owned(),
            super_options: "rw,user_id=7".to_owned(),
        }
    }

    #[test]
    fn a_mount_is_found_without_touching_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        // It does not even exist: whoever looked at it would get an error.
        let mounts = [entry(&dir.join("mnt"), system::FS_TYPE)];
        symlink("mnt", dir.join("link")).unwrap();
        symlink(&dir, dir.join("again")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        for name in ["mnt", "mnt/", "./mnt", "link", "again/mnt", "again/again/link"] {
            let found = find_in(&dir.join(name), &mounts).unwrap();
            assert_eq!(found.mountpoint, dir.join("mnt"), "{name}");
            assert_eq!(Target::new(found).owner, Uid::from_raw(7));
        }
        for name in ["mnt/inside", "link/a/b"] {
            let err = find_in(&dir.join(name), &mounts).unwrap_err();
            assert!(matches!(err, LookError::Inside { .. }), "{name}: {err}");
        }
        let err = find_in(&dir, &mounts).unwrap_err().to_string();
        assert!(err.contains("is not a mount of Ozone FS; these are: "), "{err}");
        let err = find_in(&dir.join("none"), &mounts).unwrap_err().to_string();
        assert!(err.contains("No such file"), "{err}");
        assert!(find_in(&dir.join("loop"), &mounts).is_err());
    }

    #[test]
    fn what_is_mounted_on_top_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let mounts = [entry(&dir, system::FS_TYPE), entry(&dir, "tmpfs")];
        assert!(matches!(find_in(&dir, &mounts), Err(LookError::NotMounted { .. })));
        assert!(find_in(&dir, &mounts[..1]).is_ok());
    }
}
