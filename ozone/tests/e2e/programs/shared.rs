//! Programs on two mounts at once that rely on locks or on appending as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::process::Process;
use crate::harness::sides::need;
use crate::harness::{Cluster, run, shell};

/// Appends `count` records to `file`, each in one write(2): who, number, length, filler, newline.
const APPEND: &str = r#"
import os, random, sys
file, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sizes = random.Random(who)
fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for n in range(count):
    filler = who * sizes.choice([1, 7, 100, 4096, 5000, 70000])
    record = ("%s %d %d %s\n" % (who, n, len(filler), filler)).encode()
    assert os.write(fd, record) == len(record)
    if n % 50 == 0:
        os.fsync(fd)
os.close(fd)
"#;

/// Starts `script` in `dir`.
fn begin(dir: &Path, log: &Path, script: &str) -> Process {
    let mut command = Command::new("bash");
    command.current_dir(dir).args(["-euo", "pipefail", "-c", script]);
    Process::spawn(&mut command, log)
}

/// Waits for all of them, which must succeed.
#[track_caller]
fn await_all(processes: Vec<Process>, log: &Path) {
    for process in processes {
        let status = process.wait();
        let said = fs::read_to_string(log).unwrap_or_default();
        assert!(status.success(), "{status}\n{said}");
    }
}

#[test]
fn appends_of_two_mounts_are_whole() {
    need(&["python3"]);
    const COUNT: usize = 200;
    let cluster = Cluster::start();
    let mounts = [cluster.mount(), cluster.mount()];
    let log = cluster.dir.path().join("append.log");
    let append = |n: usize, who: char| {
        begin(mounts[n].path(), &log, &format!("python3 -c '{APPEND}' log {who} {COUNT}"))
    };
    await_all(vec![append(0, 'a'), append(1, 'b'), append(0, 'c'), append(1, 'd')], &log);

    let read = |n: usize| fs::read_to_string(mounts[n].join("log")).unwrap();
    let text = read(0);
    assert!(text == read(1), "the mounts see different files");
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [who, number, length, filler] = fields[..] else { panic!("torn record: {line:.80}") };
        assert!(filler.len() == length.parse::<usize>().unwrap(), "torn record: {line:.80}");
        assert!(filler.chars().all(|c| who.contains(c)), "mixed record: {line:.80}");
        let expected = next.entry(who).or_default();
        assert_eq!(number.parse(), Ok(*expected), "records of {who} are lost or out of order");
        *expected += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [COUNT; 4], "records are lost");
}

/// Rollback journals need locks and fresh pages only; a WAL needs memory that all share, so it is
/// used from one mount.
#[test]
fn sqlite_on_two_mounts() {
    need(&["sqlite3"]);
    const EACH: usize = 25;
    let cluster = Cluster::start();
    let mounts = [cluster.mount(), cluster.mount()];
    let log = cluster.dir.path().join("sqlite.log");
    for mode in ["delete", "truncate", "persist"] {
        let sqlite = format!("sqlite3 -bail -cmd '.timeout 50000' {mode}.db");
        shell(
            mounts[0].path(),
            &format!(
                "{sqlite} 'pragma journal_mode={mode}; create table t(who, n); create index i on t(n);
                 create table total(n); insert into total values(0);'"
            ),
        );
        let insert = |n: usize, who: usize| {
            let script = format!(
                "for n in $(seq {EACH}); do
                     echo \"pragma journal_mode={mode}; begin immediate; insert into t values({who}, $n);
                            update total set n = n + 1; commit;\"
                 done | {sqlite}"
            );
            begin(mounts[n].path(), &log, &script)
        };
        let writers = vec![insert(0, 1), insert(1, 2), insert(0, 3), insert(1, 4)];
        // Whoever looks meanwhile finds a whole database, with both tables of one transaction.
        let look = format!(
            "{sqlite} 'pragma integrity_check; select (select count(*) from t) - n from total'"
        );
        for mount in mounts.iter().cycle().take(10) {
            assert_eq!(shell(mount.path(), &look), "ok\n0\n", "journal_mode={mode}");
        }
        await_all(writers, &log);
        let count = format!(
            "{sqlite} 'pragma integrity_check; select count(*), count(distinct who * 100 + n) from t; \
             select n from total'"
        );
        let all = 4 * EACH;
        for mount in &mounts {
            assert_eq!(shell(mount.path(), &count), format!("ok\n{all}|{all}\n{all}\n"), "{mode}");
        }
        // A transaction whose writer was killed is rolled back by the other mount's next reader.
        let mut killed = Command::new("bash");
        killed.current_dir(mounts[0].path()).args([
            "-c",
            &format!(
                "(echo 'pragma journal_mode={mode}; pragma cache_spill=1; pragma cache_size=5; begin immediate; delete from t;
                        insert into t select 1, hex(randomblob(2000)) from (
                            with recursive c(x) as (values(1) union all select x+1 from c where x<200)
                            select x from c);'
                  echo '.shell kill -9 $PPID') | {sqlite}; ls {mode}.db-journal"
            ),
        ]);
        run(&mut killed);
        assert_eq!(shell(mounts[1].path(), &count), format!("ok\n{all}|{all}\n{all}\n"), "{mode}");
    }
}
