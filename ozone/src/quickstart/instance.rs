//! Which quickstart runs on which mount point: one locked file each, so that `--stop` finds it and
//! a killed one leaves nothing to clean up.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fail;
use crate::{Failure, Outcome};

/// How long `--stop` waits for a flush of everything that is unwritten.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// The claim on a mount point, for as long as it lives.
pub struct Instance {
    _lock: Flock<File>,
}

impl Instance {
    /// Error: another quickstart has it.
    pub fn claim(mountpoint: &Path) -> Result<Self, Failure> {
        let path = path_of(mountpoint)?;
        let file = open(&path)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| fail(&format!("a quickstart already runs on {}", mountpoint.display())))?;
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()));
        written.map_err(|e| fail(&format!("{}: {e}", path.display())))?;
        Ok(Instance { _lock: lock })
    }
}

/// Ends the quickstart on `mountpoint` and returns when it has gone.
pub fn stop(mountpoint: &Path) -> Outcome {
    let none = || fail(&format!("no quickstart runs on {}", mountpoint.display()));
    let mut file = open(&path_of(mountpoint)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| fail(&e))?;
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => return Err(none()),
        Err((file, _)) => file,
    };
    let pid: i32 = text.trim().parse().map_err(|_| none())?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)
        .map_err(|e| fail(&format!("cannot signal process {pid}: {e}")))?;
    // The lock goes with the process: the only wait that cannot be fooled by a reused pid.
    let end = Instant::now() + STOP_PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_) => return Ok(()),
            Err((file, _)) if Instant::now() < end => file,
            Err(_) => return Err(fail(&format!("process {pid} has not ended"))),
        };
        std::thread::sleep(POLL);
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| fail(&format!("{}: {e}", path.display())))
}

/// The lock file of a mount point: its path in hex would be too long for a name, so a hash of it.
fn path_of(mountpoint: &Path) -> Result<PathBuf, Failure> {
    let dir = runtime_dir().join("quickstart");
    std::fs::create_dir_all(&dir).map_err(|e| fail(&format!("{}: {e}", dir.display())))?;
    Ok(dir.join(format!("{:016x}", fnv1a(mountpoint.as_os_str().as_bytes()))))
}

fn runtime_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/ozone");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Path::new(&dir).join("ozone"),
        _ => std::env::temp_dir().join(format!("ozone-{}", nix::unistd::geteuid())),
    }
}

/// FNV-1a, 64 bits: a stable name, not a secret.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
