//! `ozone accesslog`: each operation of a mount as it is answered.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ozone_fuse_client::look::{Answer, LookError, Record, Request};

use super::{failure, json, print, target, unexpected, units};
use crate::Outcome;

/// Each operation of a mount as it is answered, with caller, error and time.
///
/// Lines look like this: when it began, who asked, what of which inode, with what, what became of it
/// (with bytes, for data), and the seconds that it took:
///
/// 2026-11-21T19:50:03.123456Z [uid:1000,gid:1000,pid:4403(4405)] read (17669: 4096 at 0, fh 3): OK (4096) <0.000031>
///
/// The number in parentheses is the thread. Where the process has ended already, only that is known;
/// the kernel's own requests have neither. A reader that is too slow misses lines, and is told how many;
/// the mount waits for nobody. Names are relative to the directory whose inode is shown.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct AccessLogArgs {
    /// The directory on which it is mounted.
    mountpoint: PathBuf,
    /// End after so many operations.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &AccessLogArgs) -> Outcome {
    let target = target(&args.mountpoint)?;
    let mut asking = target.ask(Request::AccessLog).map_err(failure)?;
    match asking.line().map_err(failure)? {
        Answer::Listening => asking.wait_for_ever().map_err(failure)?,
        _ => return Err(unexpected()),
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let answer = match asking.line() {
            Ok(answer) => answer,
            // Unmounted: that is all there was.
            Err(LookError::Ended { .. }) => return Ok(()),
            Err(err) => return Err(failure(err)),
        };
        let text = match (&answer, args.json) {
            (Answer::Record(record), false) => line(record),
            (Answer::Record(record), true) => json(record)?,
            (Answer::Dropped(count), false) => format!("# {count} operations are missing here"),
            (Answer::Dropped(_), true) => json(&answer)?,
            _ => return Err(unexpected()),
        };
        left -= u64::from(matches!(answer, Answer::Record(_)));
        if !print(&text)? {
            return Ok(());
        }
    }
    Ok(())
}

fn line(record: &Record) -> String {
    let Record { uid, gid, tid, inode, operation, arguments, .. } = record;
    let time = units::time(record.seconds, record.micros);
    let caller = match (record.pid, tid) {
        (0, 0) => "kernel".to_owned(),
        (0, tid) => format!("uid:{uid},gid:{gid},pid:({tid})"),
        (pid, tid) => format!("uid:{uid},gid:{gid},pid:{pid}({tid})"),
    };
    let arguments = match arguments.is_empty() {
        true => String::new(),
        false => format!(": {arguments}"),
    };
    let outcome = match (record.errno, record.error.as_str(), record.bytes) {
        (0, _, 0) => "OK".to_owned(),
        (0, _, bytes) => format!("OK ({bytes})"),
        (errno, "" | "UnknownErrno", _) => format!("errno {errno}"),
        (_, error, _) => error.to_owned(),
    };
    let took = Duration::from_micros(record.took_us).as_secs_f64();
    format!("{time} [{caller}] {operation} ({inode}{arguments}): {outcome} <{took:.6}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let record = Record {
            seconds: 1_767_225_600,
            micros: 42,
            operation: "read".to_owned(),
            inode: 7,
            arguments: "4096 at 0, fh 3".to_owned(),
            uid: 1000,
            gid: 100,
            pid: 4403,
            tid: 4405,
            bytes: 4096,
            took_us: 31,
            ..Record::default()
        };
        assert_eq!(
            line(&record),
            "2026-01-01T00:00:00.000042Z [uid:1000,gid:100,pid:4403(4405)] \
             read (7: 4096 at 0, fh 3): OK (4096) <0.000031>"
        );
        let failed = Record {
            operation: "getattr".to_owned(),
            arguments: String::new(),
            errno: 2,
            error: "ENOENT".to_owned(),
            pid: 0,
            ..record.clone()
        };
        assert!(line(&failed).ends_with("pid:(4405)] getattr (7): ENOENT <0.000031>"));
        let unknown =
            Record { errno: 999, error: "UnknownErrno".to_owned(), tid: 0, pid: 0, ..record };
        assert!(line(&unknown).contains("[kernel] "));
        assert!(line(&unknown).contains(": errno 999 <"));
    }
}
