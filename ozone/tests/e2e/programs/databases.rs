//! SQLite, in all its journal modes.

use crate::harness::sides::Sides;

const MODES: [&str; 6] = ["delete", "truncate", "persist", "memory", "wal", "off"];

/// What a database holds, and that it is whole.
const LOOK: &str = "pragma integrity_check; select count(*), min(a), max(a), sum(length(b)) from t; \
    select count(*) from t indexed by i where b > 0;";

#[test]
fn sqlite_in_every_journal_mode() {
    let mut sides = Sides::start(&["sqlite3"]);
    for mode in MODES {
        // Without a journal there is nothing to roll back to.
        let rollback = if mode == "off" {
            ""
        } else {
            "begin; delete from t where a % 3 = 0; rollback; \
                savepoint s; insert into t values(1000, 2); rollback to s; release s;"
        };
        let script = format!(
            "(echo 'pragma journal_mode={mode}; create table t(a integer primary key, b text);
                    create index i on t(b);'
              for i in $(seq 40); do echo \"insert into t(b) values(hex(zeroblob(1500)) || $i);\"; done
              echo '{rollback} begin; update t set b = b || a; delete from t where a % 7 = 1; commit;
                    vacuum; {LOOK}'
             ) | sqlite3 -bail {mode}.db; ls {mode}.db*"
        );
        let said = sides.same(&script);
        assert!(said.contains("\nok\n34|2|40|"), "journal_mode={mode}: {said}");
    }
    sides.mount.remount();
    for mode in MODES {
        sides.same(&format!(
            "sqlite3 -bail {mode}.db \"{LOOK}\"; sqlite3 {mode}.db .dump | sha256sum"
        ));
        sides.same(&format!("sqlite3 -bail -cmd 'pragma mmap_size=10000000' {mode}.db \"{LOOK}\""));
    }
}

/// Several processes write and one reads all the time; the locks of one mount are the kernel's.
#[test]
fn sqlite_with_several_processes() {
    let sides = Sides::start(&["sqlite3"]);
    for mode in ["delete", "truncate", "persist", "wal"] {
        let said = sides.same(&format!(
            "db='sqlite3 -bail -cmd \".timeout 60000\" {mode}.db'
             eval $db \"'pragma journal_mode={mode}; create table t(who, n); create index i on t(n)'\"
             for who in 1 2 3; do
                 (for n in $(seq 20); do echo \"insert into t values($who, $n);\"; done | eval $db) &
                 pids=\"${{pids-}} $!\"
             done
             for n in $(seq 10); do eval $db \"'pragma integrity_check'\" | grep -qx ok; done
             for pid in $pids; do wait $pid; done; pids=
             eval $db \"'pragma integrity_check; select count(*), count(distinct who * 100 + n) from t'\""
        ));
        assert!(said.ends_with("ok\n60|60\n"), "journal_mode={mode}: {said}");
    }
}
