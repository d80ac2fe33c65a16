//! PostgreSQL with its data directory in the mount: what it was told is on stable storage is there
//! after it was killed, and after the mount was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::process::Process;
use crate::harness::sides::{Sides, as_user, long};
use crate::harness::{await_some, run, shell};

const USER: &str = "postgres";

/// The newest PostgreSQL that Debian has installed.
fn bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let with_server = versions.map(|v| v.path().join("bin")).filter(|b| b.join("initdb").exists());
    with_server.max().expect("not installed: postgresql; `cargo xtask test` installs it")
}

/// A server over a data directory.
struct Server {
    process: Option<Process>,
    dir: PathBuf,
    socket: tempfile::TempDir,
}

impl Server {
    /// A new database cluster in `dir`, and its server.
    fn create(dir: &Path) -> Self {
        let socket = tempfile::Builder::new().prefix("ozone-pg-").tempdir().unwrap();
        fs::create_dir(dir).unwrap();
        for owned in [dir, socket.path()] {
            run(Command::new("chown").arg(USER).arg(owned));
        }
        let mut initdb = as_user(USER, &bin().join("initdb"));
        run(initdb.arg("-D").arg(dir).args(["-A", "trust", "--data-checksums", "--locale=C"]));
        let mut server = Server { process: None, dir: dir.to_owned(), socket };
        server.up();
        server
    }

    fn up(&mut self) {
        let mut command = as_user(USER, &bin().join("postgres"));
        command.arg("-D").arg(&self.dir).arg("-k").arg(self.socket.path());
        command.args(["-c", "listen_addresses=", "-c", "autovacuum_naptime=1s"]);
        command.current_dir("/");
        let log = self.socket.path().join("server.log");
        self.process = Some(Process::spawn(&mut command, &log));
        await_some("PostgreSQL", || {
            let ended = self.process.as_mut().and_then(Process::ended);
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL ended: {ended:?}\n{said}");
            self.client("pg_isready").output().is_ok_and(|o| o.status.success()).then_some(())
        });
    }

    fn client(&self, program: &str) -> Command {
        let mut command = as_user(USER, &bin().join(program));
        command.env("PGHOST", self.socket.path()).env("PGDATABASE", "postgres").current_dir("/");
        command
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        let output = run(self.client("psql").args(["-XAtqv", "ON_ERROR_STOP=1", "-c", sql]));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts pgbench and answers when it has run for `seconds`, by its own account.
    fn bench(&self, seconds: u32) -> Process {
        let log = self.socket.path().join("bench.log");
        let _ = fs::remove_file(&log);
        let mut command = self.client("pgbench");
        command.args(["-n", "-c4", "-j2", "-T600", "-P1"]);
        let mut bench = Process::spawn(&mut command, &log);
        for second in 1..=seconds {
            await_some("pgbench", || {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let ended = bench.ended();
                assert!(ended.is_none(), "pgbench ended: {ended:?}\n{said}");
                (said.matches("progress:").count() >= second as usize).then_some(())
            });
        }
        bench
    }

    /// `kill -9` of all its processes at once, and they are gone.
    fn kill(&mut self) {
        let server = self.process.take().expect("running");
        let pid = server.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let children: Vec<i32> = children.split(' ').filter_map(|c| c.parse().ok()).collect();
        server.kill();
        for child in children {
            // One that has noticed and ended is as good.
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
            let proc = PathBuf::from(format!("/proc/{child}"));
            await_some("a child of PostgreSQL to end", || (!proc.exists()).then_some(()));
        }
    }

    /// A smart shutdown.
    fn down(&mut self) {
        let server = self.process.take().expect("running");
        server.signal(libc::SIGTERM);
        assert!(server.wait().success());
    }

    /// What pgbench's transactions keep equal, and how many there were.
    fn history(&self) -> u64 {
        let sums = "select (select sum(abalance) from pgbench_accounts), \
            (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers), \
            (select coalesce(sum(delta), 0) from pgbench_history)";
        let row = self.sql(sums);
        let sums: Vec<&str> = row.split('|').collect();
        assert!(sums.iter().all(|s| *s == sums[3]), "torn transactions: {row}");
        self.sql("select count(*) from pgbench_history").parse().unwrap()
    }
}

/// pgbench for a minute in the long form.
#[test]
fn postgres_is_killed_and_so_is_the_mount() {
    let seconds = if long() { 60 } else { 4 };
    let mut sides = Sides::start(&["setpriv", "pg_lsclusters"]);
    let mut server = Server::create(&sides.mount.join("pg"));
    run(server.client("pgbench").args(["-i", "-q", "-s2"]));
    // What is visible was acknowledged, so it is on stable storage.
    let bench = server.bench(seconds);
    let before = server.history();
    server.kill();
    drop(bench);
    server.up();
    let after = server.history();
    assert!(before > 0 && after >= before, "{after} of {before} transactions");

    let bench = server.bench(seconds.div_ceil(2));
    let before = server.history();
    sides.mount.kill();
    drop(bench);
    server.kill();
    sides.mount.up();
    server.up();
    let after_mount = server.history();
    assert!(before > after && after_mount >= before, "{after_mount} of {before} transactions");

    server.sql("create extension amcheck");
    server.sql(
        "select bt_index_check(c.oid, true) from pg_class c join pg_am a on a.oid = c.relam \
         where a.amname = 'btree' and c.relkind = 'i'",
    );
    server.sql("vacuum full");
    server.sql("reindex database postgres");
    server.down();
    run(as_user(USER, &bin().join("pg_checksums")).arg("-D").arg(&server.dir).arg("--check"));
    sides.mount.remount();
    server.up();
    assert_eq!(server.history(), after_mount);
    server.down();
}

/// The same statements on both sides leave the same database.
#[test]
fn postgres_does_what_it_does_on_a_local_disk() {
    let sides = Sides::start(&["setpriv", "pg_lsclusters"]);
    let dump = |at: &Path| -> String {
        let mut server = Server::create(&at.join("pg"));
        server.sql(
            "create table t(a int primary key, b text); create index on t(b); \
             insert into t select n, repeat(md5(n::text), n % 200) from generate_series(1, 5000) n; \
             delete from t where a % 5 = 0; update t set b = b || a where a % 7 = 0",
        );
        server.sql("create database other template template0");
        server.down();
        server.up();
        let dump = run(&mut server.client("pg_dump")).stdout;
        server.down();
        // A key of the day guards the script.
        let dump = String::from_utf8(dump).unwrap();
        dump.lines()
            .filter(|l| !l.contains("restrict "))
            .map(|l| format!("{l}\n"))
            .collect::<String>()
    };
    let local = dump(sides.local.path());
    crate::harness::sides::assert_same(&local, &dump(sides.mount.path()));
    shell(sides.mount.path(), "rm -r pg; ls -A");
}
