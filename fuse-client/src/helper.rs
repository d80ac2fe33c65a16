//! `mount.fuse.ozone SOURCE DIR [-sfnv] [-o options]`, which mount(8) runs.
//!
//! ```text
//!   parent: check, fork ────────── wait for the pipe ──────────► exit 0, 1, 2 or 32
//!                    └► child: detach, connect, mount, serve │ status, message
//! ```
//! The fork comes before any thread. The child is the mount process; it reports through the pipe when
//! the mount answers, or why it does not, and lives on.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe, setsid};
use tracing_subscriber::EnvFilter;

use crate::mount::{self, MountConfig, MountError};
use crate::options::{Options, UsageError};
use crate::syslog;
use crate::system;

/// What `--help` prints.
pub const USAGE: &str = "usage: mount.fuse.ozone SOURCE DIRECTORY [-sfnv] [-o option[,option…]]
  SOURCE  [host[:port][,host[:port]…]:]/[volume[/bucket[/directory]]]
options besides those of mount(8):
  metad=host:port[+host:port…]  servers, where SOURCE and /etc/ozone/ozone.toml name none
  memory=512M                   ceiling of the mount process
  connect_timeout=30            seconds to wait for servers
  readers=N                     threads that read requests; one per CPU, 2 to 8
  bucket_idle=60                with several buckets: seconds after which an unused one is closed
  allow_other                   let other users in (root's default)
  log=FILE, log_level=info      log to a file instead of syslog
  config=FILE                   instead of /etc/ozone/ozone.toml";

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Command {
    source: String,
    mountpoint: PathBuf,
    options: Options,
    /// Check everything, mount nothing.
    fake: bool,
    verbose: bool,
}

/// Runs the helper with the arguments after the program's name. Call it before any thread is started.
pub fn main(args: &[OsString]) -> ExitCode {
    let command = match parse(args) {
        Ok(Some(command)) => command,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(err) => {
            eprintln!("mount.fuse.ozone: {err}\n{USAGE}");
            return ExitCode::from(1);
        }
    };
    let result = match command.options.remount {
        true => remount(&command),
        false => mount(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, message)) => {
            eprintln!("mount.fuse.ozone: {message}");
            ExitCode::from(status)
        }
    }
}

/// `None` when help is asked for.
fn parse(args: &[OsString]) -> Result<Option<Command>, UsageError> {
    let mut command = Command::default();
    let (mut positional, mut list, mut sloppy) = (Vec::new(), Vec::new(), false);
    let mut args = args.iter().map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        match &*arg {
            "-h" | "--help" => return Ok(None),
            "-o" | "-t" | "-N" => {
                let missing = || UsageError(format!("{arg} needs a value"));
                let value = args.next().ok_or_else(missing)?;
                if arg == "-o" {
                    list.push(value.into_owned());
                }
            }
            flags if flags.len() > 1 && flags.starts_with('-') => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        's' => sloppy = true,
                        'f' => command.fake = true,
                        'v' => command.verbose = true,
                        'n' => {}
                        'r' => list.push("ro".to_owned()),
                        'w' => list.push("rw".to_owned()),
                        _ => return Err(UsageError(format!("unknown flag '-{flag}'"))),
                    }
                }
            }
            _ => positional.push(arg.into_owned()),
        }
    }
    let [source, mountpoint] = &positional[..] else {
        return Err(UsageError("a source and a directory are needed".to_owned()));
    };
    command.source = source.clone();
    command.mountpoint = PathBuf::from(mountpoint);
    command.options = Options::parse(&list.join(","), sloppy)?;
    Ok(Some(command))
}

type Outcome = Result<(), (u8, String)>;

fn failure(err: &MountError) -> (u8, String) {
    (err.exit_status(), err.to_string())
}

fn remount(command: &Command) -> Outcome {
    let shown = command.mountpoint.display();
    let found = system::resolve_mountpoint(&command.mountpoint)
        .and_then(|path| system::mounted_at(&path))
        .map_err(|err| (32, format!("{shown}: {err}")))?;
    let ours = found.filter(|entry| entry.fs_type == system::FS_TYPE);
    let entry = ours.ok_or_else(|| (32, format!("{shown} is not mounted as Ozone FS")))?;
    let mut flags = entry.flags();
    command.options.named.iter().for_each(|flag| flag.apply(&mut flags));
    if command.fake {
        return Ok(());
    }
    system::remount(&entry, flags).map_err(|err| (32, format!("cannot remount {shown}: {err}")))
}

fn mount(command: &Command) -> Outcome {
    let mut config = MountConfig::new(&command.source, &command.mountpoint, &command.options)
        .map_err(|err| failure(&err.into()))?;
    // Here already, because the child has another directory, and its message comes later.
    config.mountpoint = system::check_mountpoint(&config.mountpoint)
        .map_err(|why| failure(&MountError::Refused(why)))?;
    if command.fake {
        return Ok(());
    }
    let system_error = |what, cause| failure(&MountError::System { what, cause });
    let (reading, writing) = pipe().map_err(|err| system_error("pipe", err.into()))?;
    // SAFETY: this process has no other thread yet, so the child may do anything.
    match unsafe { fork() }.map_err(|err| system_error("fork", err.into()))? {
        ForkResult::Parent { child } => {
            drop(writing);
            let outcome = read_report(File::from(reading), child);
            if outcome.is_ok() && command.verbose {
                println!("{} mounted on {}", command.source, config.mountpoint.display());
            }
            outcome
        }
        ForkResult::Child => {
            drop(reading);
            let status = child(command, config, File::from(writing));
            // The stack above belongs to the parent's story.
            std::process::exit(status.into())
        }
    }
}

/// The child's report: its exit status as one byte, then a message.
fn read_report(mut pipe: File, child: Pid) -> Outcome {
    let mut report = Vec::new();
    let read = pipe.read_to_end(&mut report);
    match (read, report.split_first()) {
        (Ok(_), Some((0, _))) => Ok(()),
        (Ok(_), Some((status, message))) => {
            Err((*status, String::from_utf8_lossy(message).into_owned()))
        }
        (Ok(_), None) => {
            let how = match waitpid(child, None) {
                Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
                Ok(WaitStatus::Exited(_, status)) => format!("with status {status}"),
                Ok(_) | Err(_) => "unexpectedly".to_owned(),
            };
            Err((32, format!("the mount process ended before it had mounted: {how}")))
        }
        (Err(err), _) => Err((2, format!("cannot read the mount process's report: {err}"))),
    }
}

/// The mount process. Returns its exit status.
fn child(command: &Command, config: MountConfig, mut pipe: File) -> u8 {
    let report = |pipe: &mut File, status: u8, message: &str| {
        let bytes = [&[status], message.as_bytes()].concat();
        pipe.write_all(&bytes)
    };
    if let Err(cause) = detach(&command.options, pipe.as_raw_fd()) {
        let (status, message) = failure(&MountError::System { what: "cannot detach", cause });
        // If the parent has gone there is nobody to tell.
        let _ = report(&mut pipe, status, &message);
        return status;
    }
    start_logging(&command.options);
    let pipe = std::cell::RefCell::new(Some(pipe));
    let result = mount::run_reporting(config, || match pipe.borrow_mut().take() {
        Some(mut pipe) => report(&mut pipe, 0, ""),
        None => Ok(()),
    });
    let Err(err) = result else { return 0 };
    tracing::error!("{err}");
    let (status, message) = failure(&err);
    if let Some(mut pipe) = pipe.borrow_mut().take() {
        // As above; it has been logged.
        let _ = report(&mut pipe, status, &message);
    }
    status
}

/// Leaves the caller's session, directory and files. What goes wrong later and is not logged (a
/// panic's message) goes to the log file, if there is one.
fn detach(options: &Options, keep: RawFd) -> io::Result<()> {
    setsid()?;
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let output: OwnedFd = match &options.log {
        Some(path) => OpenOptions::new().create(true).append(true).open(path)?.into(),
        None => null.try_clone()?.into(),
    };
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&output)?;
    nix::unistd::dup2_stderr(&output)?;
    drop((null, output));
    close_all_but(keep);
    Ok(())
}

/// Closes what this process inherited, except for the standard streams and `keep`.
fn close_all_but(keep: RawFd) {
    let close = |from: u32, to: u32| {
        if from <= to {
            // SAFETY: no object of this process owns any of these descriptors any more: `keep` and
            // the standard streams are the only files that it has open. Failure (an old kernel)
            // leaves them open, which does no harm here.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    let keep = keep as u32; // a descriptor is not negative
    close(3, keep - 1);
    close(keep + 1, u32::MAX);
}

fn start_logging(options: &Options) {
    let level = options.log_level.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // A second subscriber in this process would be an error; there is none after a fork.
    let _ = match &options.log {
        Some(_) => builder.with_writer(io::stderr).try_init(),
        None => builder.without_time().with_level(false).with_writer(syslog::Syslog).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn command_lines_of_mount() {
        let line = "m1:/vol1/bucket1 /mnt -n -o rw,noatime -t fuse.ozone -v";
        let command = parse(&args(line)).unwrap().unwrap();
        assert_eq!(command.source, "m1:/vol1/bucket1");
        assert_eq!(command.mountpoint, Path::new("/mnt"));
        assert!(command.verbose && !command.fake);
        let access_times = command.options.flags.access_times;
        assert_eq!(access_times.when, ozone_client::AccessTime::Never);

        let command = parse(&args("/v/b /mnt -sfo bogus,ro"));
        assert!(command.is_err(), "-o must stand alone, as mount(8) passes it");
        let command = parse(&args("/v/b /mnt -sf -o bogus,ro")).unwrap().unwrap();
        assert!(command.fake && command.options.flags.read_only);
        let command = parse(&args("-r /v/b /mnt")).unwrap().unwrap();
        assert!(command.options.flags.read_only);
        assert_eq!(parse(&args("--help")).unwrap(), None);
    }

    #[test]
    fn wrong_command_lines() {
        for (line, part) in [
            ("/v/b", "a source and a directory"),
            ("/v/b /mnt extra", "a source and a directory"),
            ("/v/b /mnt -o", "-o needs a value"),
            ("/v/b /mnt -x", "unknown flag '-x'"),
            ("/v/b /mnt -o bogus", "unknown option 'bogus'"),
        ] {
            let err = parse(&args(line)).unwrap_err();
            assert!(err.0.contains(part), "{line}: {err}");
        }
    }

    #[test]
    fn refusals_have_mount_8_status() {
        let refused = |line: &str| mount(&parse(&args(line)).unwrap().unwrap()).unwrap_err();
        assert_eq!(refused("m1:/Vol/bucket1 /mnt").0, 1);
        assert_eq!(refused("m1:/vol1/bucket1 /nonexistent").0, 32);
        let (status, message) = refused("m1:/vol1/bucket1 /proc");
        assert_eq!(status, 32);
        assert!(message.contains("/proc is a mount already"), "{message}");
        let (status, message) =
            remount(&parse(&args("m1:/vol1/bucket1 /proc -o remount,ro")).unwrap().unwrap())
                .unwrap_err();
        assert_eq!(status, 32);
        assert!(message.contains("not mounted as Ozone FS"), "{message}");
    }

    #[test]
    fn reports() {
        let report = |bytes: &[u8]| {
            let (reading, writing) = pipe().unwrap();
            File::from(writing).write_all(bytes).unwrap();
            read_report(File::from(reading), Pid::from_raw(i32::MAX))
        };
        assert_eq!(report(b"\0"), Ok(()));
        assert_eq!(report(b"\x20no server"), Err((32, "no server".to_owned())));
        assert_eq!(report(b"").unwrap_err().0, 32);
    }
}
