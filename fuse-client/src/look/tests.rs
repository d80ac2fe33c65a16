//! A mount's socket over a backend in memory, without a mount.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use ozone_platform::real_clock;
use ozone_types::Timestamp;

use super::*;
use crate::fake::Fake;
use crate::vfs::Vfs;

async fn subject() -> Arc<Subject<Fake>> {
    let client = Fake::new();
    let vfs = Vfs::new(client.clone()).await.unwrap();
    let facts = Facts {
        source: "h:/vol1/bucket1".to_owned(),
        mountpoint: "/mnt".into(),
        options: vec!["memory=512M".to_owned()],
        memory_limit: 512 << 20,
        began: Instant::now(),
    };
    Arc::new(Subject { facts, client, vfs, looking: Looking::new(real_clock()) })
}

/// Says one line; the answers are read one by one.
fn say(path: &Path, line: &str) -> impl Iterator<Item = Answer> + use<> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

fn ask(path: &Path, request: &str) -> impl Iterator<Item = Answer> + use<> {
    say(path, &format!("{{\"version\":1,\"request\":\"{request}\"}}"))
}

fn read(tid: u32) -> Note {
    Note {
        began: Timestamp::new(7, 8_999),
        operation: Operation::Read,
        inode: 5,
        arguments: "9 at 0".into(),
        uid: 1,
        gid: 2,
        tid,
        outcome: Outcome::error(libc::EIO),
        took: Duration::from_micros(3),
    }
}

#[tokio::test]
async fn what_is_asked_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/0:5.sock");
    let subject = subject().await;
    let server = Server::start_at(path.clone(), subject.clone()).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let Some(Answer::Info(info)) = ask(&path, "info").next() else { panic!() };
    assert_eq!((info.pid, info.source.as_str()), (std::process::id(), "h:/vol1/bucket1"));
    assert_eq!(info.client.bucket, "bucket1");
    assert!(info.memory_used > 0 && info.waiting.is_empty());

    subject.looking.waits(Operation::Create);
    let took = Duration::from_micros(3);
    subject.looking.answered(Operation::Read, took, Outcome::bytes(10));
    let Some(Answer::Info(info)) = ask(&path, "info").next() else { panic!() };
    assert_eq!(info.waiting, [("create".to_owned(), 1)].into());
    let Some(Answer::Stats(stats)) = ask(&path, "stats").next() else { panic!() };
    assert_eq!((stats.operations["read"].count(), stats.bytes_read), (1, 10));
    assert_eq!(stats.operations["create"].running, 1);
    let Some(Answer::Metrics(text)) = ask(&path, "metrics").next() else { panic!() };
    assert!(text.contains("ozone_mount_operation_seconds_count{operation=\"read\"} 1"), "{text}");
    assert!(text.contains("ozone_mount_read_bytes_total 10"), "{text}");
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_log_is_told_while_somebody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0:5.sock");
    let subject = subject().await;
    let server = Server::start_at(path.clone(), subject.clone()).unwrap();
    assert!(!subject.looking.is_listening());
    let mut answers = ask(&path, "accesslog");
    assert_eq!(answers.next(), Some(Answer::Listening));
    assert!(subject.looking.is_listening());
    subject.looking.tell(read(std::process::id()));
    let Some(Answer::Record(record)) = answers.next() else { panic!() };
    let own = std::process::id();
    assert_eq!((record.pid, record.tid, record.uid, record.gid), (own, own, 1, 2));
    assert_eq!((record.seconds, record.micros, record.took_us), (7, 8, 3));
    assert_eq!((record.operation.as_str(), record.arguments.as_str()), ("read", "9 at 0"));
    assert_eq!((record.errno, record.error.as_str()), (libc::EIO, "EIO"));

    // Whoever goes is noticed.
    let more = ask(&path, "accesslog");
    drop(answers);
    let deadline = Instant::now() + Duration::from_secs(20);
    drop(more);
    while subject.looking.is_listening() {
        assert!(Instant::now() < deadline, "a listener that has gone is still told");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The end of the mount ends the log.
    let mut answers = ask(&path, "accesslog");
    assert_eq!(answers.next(), Some(Answer::Listening));
    drop(server);
    assert_eq!(answers.next(), None);
}

#[tokio::test]
async fn nonsense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0:5.sock");
    let _server = Server::start_at(path.clone(), subject().await).unwrap();
    for (line, part) in [
        ("", "what is asked?"),
        ("GET / HTTP/1.1", "what is asked?"),
        (r#"{"version":1,"request":"format"}"#, "unknown variant"),
        (r#"{"version":9,"request":"info"}"#, "version 1 of the protocol, not 9"),
    ] {
        let Some(Answer::Error(text)) = say(&path, line).next() else { panic!("{line}") };
        assert!(text.contains(part), "{line}: {text}");
    }
    let long = "x".repeat(2 * REQUEST_MAX as usize);
    let mut stream = UnixStream::connect(&path).unwrap();
    // The other side may hang up before all of it is sent.
    let _ = stream.write_all(long.as_bytes());
}

#[tokio::test]
async fn a_dead_mounts_socket_is_replaced_and_a_later_ones_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0:5.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err() && path.exists());
    let first = Server::start_at(path.clone(), subject().await).unwrap();
    assert!(matches!(ask(&path, "info").next(), Some(Answer::Info(_))));
    let _second = Server::start_at(path.clone(), subject().await).unwrap();
    drop(first);
    assert!(matches!(ask(&path, "info").next(), Some(Answer::Info(_))));
}

/// Times what every operation pays. On the machine of docs/PERFORMANCE.md, built for release, it is
/// far below a microsecond; the bound is for a debug build on a busy machine.
#[test]
fn counting_costs_next_to_nothing() {
    let looking = Looking::new(real_clock());
    let rounds = 20_000;
    let begun = Instant::now();
    for _ in 0..rounds {
        let begun = Instant::now();
        assert!(!looking.is_listening());
        looking.answered(Operation::Lookup, begun.elapsed(), Outcome::default());
    }
    let each = begun.elapsed() / rounds;
    eprintln!("{each:?} for each operation");
    assert!(each < Duration::from_micros(50), "{each:?}");
}
