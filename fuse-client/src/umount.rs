//! `umount.fuse.ozone DIR [-flnrv]`, which umount(8) runs: unmounts, waits until the mount process has
//! flushed and ended, and fails loudly if data could not be stored.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::unistd::geteuid;

use crate::runfile::{self, State, Watch};
use crate::system::{self, MountEntry};

/// How often the mount process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A process that has not noticed the unmount after this long still serves another mount namespace.
const NOTICED: Duration = Duration::from_secs(10);

#[derive(Debug, Default, PartialEq, Eq)]
struct Command {
    mountpoint: PathBuf,
    /// Abort the connection; what waits gets an error.
    force: bool,
    /// Detach now, end when nothing is open any more.
    lazy: bool,
}

/// Runs the helper with the arguments after the program's name.
pub fn main(args: &[OsString]) -> ExitCode {
    let command = match parse(args) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("umount.fuse.ozone: {message}\nusage: umount.fuse.ozone DIRECTORY [-flnrv]");
            return ExitCode::from(1);
        }
    };
    match unmount(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("umount.fuse.ozone: {message}");
            ExitCode::from(32)
        }
    }
}

fn parse(args: &[OsString]) -> Result<Command, String> {
    let mut command = Command::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        match text.strip_prefix('-') {
            Some("t" | "N") => {
                args.next();
            }
            Some(flags) if !flags.is_empty() => {
                for flag in flags.chars() {
                    match flag {
                        'f' => command.force = true,
                        'l' => command.lazy = true,
                        'n' | 'r' | 'v' => {}
                        _ => return Err(format!("unknown flag '-{flag}'")),
                    }
                }
            }
            _ if command.mountpoint.as_os_str().is_empty() => command.mountpoint = arg.into(),
            _ => return Err("one directory is enough".to_owned()),
        }
    }
    match command.mountpoint.as_os_str().is_empty() {
        true => Err("which directory?".to_owned()),
        false => Ok(command),
    }
}

/// As `umount.fuse.ozone DIR`. Errors: for the user.
#[cfg(test)]
pub(crate) fn unmount_directory(mountpoint: &Path) -> Result<(), String> {
    unmount(&Command { mountpoint: mountpoint.to_owned(), ..Command::default() })
}

fn unmount(command: &Command) -> Result<(), String> {
    let shown = command.mountpoint.display();
    let entry = find(&command.mountpoint).map_err(|err| format!("{shown}: {err}"))?;
    let entry = entry.ok_or_else(|| format!("{shown} is not mounted as Ozone FS"))?;
    // Before the unmount: a good end removes it.
    let watch = Watch::open(&runfile::path(entry.owner(), &entry.device));
    let mut watch = watch.unwrap_or_else(|err| {
        eprintln!("umount.fuse.ozone: cannot wait for the mount process: {err}");
        None
    });
    if let Some(dead) = watch.take_if(|watch| watch.ended().unwrap_or(false)) {
        // What that cost was decided when it died; this unmount can do no better.
        eprintln!("umount.fuse.ozone: the process of {shown} had died; unsynced data may be lost");
        dead.told();
    }
    detach(command, &entry.mountpoint).map_err(|err| format!("{shown}: {err}"))?;
    if command.force || command.lazy || still_mounted(&entry) {
        return Ok(());
    }
    match &mut watch {
        Some(watch) => {
            wait_for(watch, &shown.to_string()).map_err(|err| format!("{shown}: {err}"))?
        }
        None => Ok(()),
    }
}

/// By its mountpoint, or by its source, as umount(8) has it.
fn find(path: &Path) -> io::Result<Option<MountEntry>> {
    let ours = |entry: &MountEntry| entry.fs_type == system::FS_TYPE;
    if let Ok(resolved) = system::resolve_mountpoint(path)
        && let Some(entry) = system::mounted_at(&resolved)?
    {
        return Ok(Some(entry).filter(ours));
    }
    let source = path.to_string_lossy();
    Ok(system::mounts()?.into_iter().rfind(|entry| ours(entry) && entry.source == source))
}

fn detach(command: &Command, mountpoint: &Path) -> io::Result<()> {
    if !command.force && !command.lazy {
        return system::unmount(mountpoint);
    }
    if !geteuid().is_root() {
        return system::fusermount_unmount(mountpoint, true);
    }
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_FORCE, command.force);
    flags.set(MntFlags::MNT_DETACH, command.lazy);
    umount2(mountpoint, flags)?;
    Ok(())
}

/// Another mount of the same session (a bind mount) keeps the process going.
fn still_mounted(entry: &MountEntry) -> bool {
    system::mounts().is_ok_and(|all| all.iter().any(|other| other.device == entry.device))
}

/// Errors of the outer result: the run file cannot be read. The inner one is how the process ended.
fn wait_for(watch: &mut Watch, shown: &str) -> io::Result<Result<(), String>> {
    let mut waited = Duration::ZERO;
    while !watch.ended()? {
        if waited > NOTICED && watch.record()?.state == State::Mounted {
            eprintln!("umount.fuse.ozone: {shown} is still mounted in another namespace");
            return Ok(Ok(()));
        }
        sleep(LOOK);
        waited += LOOK;
    }
    let record = watch.record()?;
    watch.told();
    Ok(match record.state {
        State::Done => Ok(()),
        State::Failed(why) => Err(format!(
            "{shown} is unmounted, but DATA MAY BE LOST: what was written and not yet synced could \
             not be stored: {why}"
        )),
        State::Mounted | State::Flushing => Err(format!(
            "{shown} is unmounted, but its process (pid {}) died before it had flushed: DATA MAY BE \
             LOST",
            record.pid
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_umount() {
        let parse = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            parse(&args)
        };
        let command = parse("/mnt -n -v -t fuse.ozone").unwrap();
        assert_eq!(command, Command { mountpoint: "/mnt".into(), ..Command::default() });
        let command = parse("-fl /mnt").unwrap();
        assert!(command.force && command.lazy);
        assert!(parse("").is_err());
        assert!(parse("/a /b").is_err());
        assert!(parse("/a -z").is_err());
    }

    #[test]
    fn only_our_own_mounts() {
        let command = Command { mountpoint: "/proc".into(), ..Command::default() };
        assert!(unmount(&command).unwrap_err().contains("not mounted as Ozone FS"));
    }
}
