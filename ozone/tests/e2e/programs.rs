//! Programs that people run: what they leave in the mount is what they leave on a local disk.

use std::fs;
use std::io::{Read, Write};

use crate::harness::tree::{self, Random};
use crate::harness::{Cluster, shell};

const GIT_ENV: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
    GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; ";

#[test]
fn untar_five_thousand_files_and_find_them_again() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let local = tempfile::tempdir().unwrap();
    tree::make(&local.path().join("tree"), 5000, 1);
    let tar = local.path().join("tree.tar");
    shell(local.path(), "tar cf tree.tar tree");
    shell(mount.path(), &format!("tar xf {}", tar.display()));
    let same = format!("diff -r --no-dereference tree {}/tree", local.path().display());
    shell(mount.path(), &same);
    mount.remount();
    shell(mount.path(), &same);
    shell(mount.path(), "cp -a tree copy && diff -r --no-dereference tree copy && rm -rf tree");
    assert_eq!(shell(mount.path(), "ls"), "copy\n");
}

#[test]
fn git_works() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    tree::make(&mount.join("repo"), 300, 2);
    let script = "\
        cd repo; git init -q -b main; git add -A; git commit -q -m first; \
        git checkout -q -b side; echo change >> d00/e00/f0; git commit -q -a -m second; \
        git checkout -q main; git merge -q side; git gc -q; git fsck --full --strict; \
        cd ..; git clone -q repo clone; diff -r --exclude=.git repo clone; \
        cd clone; git fsck --full --strict; git log --oneline | wc -l";
    assert_eq!(shell(mount.path(), &format!("{GIT_ENV}{script}")).trim(), "2");
    mount.remount();
    let script = "cd clone; git status --porcelain; git fsck --full --strict";
    assert_eq!(shell(mount.path(), &format!("{GIT_ENV}{script}")), "");
}

#[test]
fn sqlite_keeps_its_promises() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    for mode in ["delete", "truncate", "persist", "wal"] {
        let script = format!(
            "(echo 'pragma journal_mode={mode}; create table t(a integer primary key, b text);'; \
              for i in $(seq 50); do echo \"insert into t(b) values(hex(randomblob(2000)));\"; done; \
              echo 'begin; delete from t where a % 3 = 0; rollback; delete from t where a = 1; vacuum;' \
             ) | sqlite3 {mode}.db"
        );
        shell(mount.path(), &script);
    }
    mount.remount();
    for mode in ["delete", "truncate", "persist", "wal"] {
        let sql = "pragma integrity_check; select count(*), min(a), length(max(b)) from t;";
        let got = shell(mount.path(), &format!("sqlite3 {mode}.db '{sql}'"));
        assert_eq!(got, "ok\n49|2|4000\n", "journal_mode={mode}");
    }
}

#[test]
fn a_c_program_is_built() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let dir = mount.join("prog");
    fs::create_dir(&dir).unwrap();
    let mut main = String::from("#include <stdio.h>\n");
    let mut sum = String::new();
    for n in 0..20 {
        let source = format!("#include <math.h>\nint f{n}(int x) {{ return x + {n}; }}\n");
        fs::write(dir.join(format!("f{n}.c")), source).unwrap();
        main += &format!("int f{n}(int);\n");
        sum += &format!(" + f{n}(1)");
    }
    main += &format!("int main(void) {{ printf(\"%d\\n\", 0{sum}); return 0; }}\n");
    fs::write(dir.join("main.c"), main).unwrap();
    let make = "OBJ := $(patsubst %.c,%.o,$(wildcard *.c))\nprog: $(OBJ)\n\tgcc -o $@ $^\n";
    fs::write(dir.join("Makefile"), make).unwrap();
    assert_eq!(shell(&dir, "make -s -j2 && ./prog"), "210\n");
    assert!(shell(&dir, "make -j2").contains("up to date"), "times are kept");
    shell(&dir, "ar rcs lib.a f*.o && gcc -g -o p2 main.c lib.a && strip p2 && ./p2");
}

#[test]
fn two_gigabytes_come_back_through_another_mount() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 2048;
    let cluster = Cluster::start();
    let mut first = cluster.mount();
    let mut file = fs::File::create(first.join("big")).unwrap();
    let mut hash = std::collections::hash_map::DefaultHasher::new();
    for n in 0..CHUNKS {
        let chunk = Random::new(n as u64 + 1).bytes(CHUNK);
        std::hash::Hasher::write(&mut hash, &chunk);
        file.write_all(&chunk).unwrap();
    }
    file.sync_all().unwrap();
    let sum = shell(first.path(), "sha256sum big");
    let second = cluster.mount();
    assert_eq!(shell(second.path(), "sha256sum big"), sum);
    // And what is there is what was written, not only the same in both.
    let mut again = std::collections::hash_map::DefaultHasher::new();
    let mut reader = fs::File::open(second.join("big")).unwrap();
    let mut chunk = vec![0; CHUNK];
    for _ in 0..CHUNKS {
        reader.read_exact(&mut chunk).unwrap();
        std::hash::Hasher::write(&mut again, &chunk);
    }
    assert_eq!(std::hash::Hasher::finish(&hash), std::hash::Hasher::finish(&again));
    let limit = 640 << 20; // 512 MiB of cache and dirty data, and the program itself
    assert!(first.process().peak_memory() < limit, "{} MiB", first.process().peak_memory() >> 20);
}

#[test]
fn rsync_vim_style_saves_and_python() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let local = tempfile::tempdir().unwrap();
    tree::make(&local.path().join("src"), 200, 3);
    let from = local.path().join("src");
    shell(mount.path(), &format!("rsync -aH {}/ dst/", from.display()));
    let again = shell(mount.path(), &format!("rsync -aHi {}/ dst/", from.display()));
    assert_eq!(again, "", "the second rsync has nothing to do");
    shell(mount.path(), "echo one > f; sed -i s/one/two/ f; cp -p f f~; mv f~ f; grep -q two f");
    let python = "import os, mmap; f = open('m', 'w+b'); f.truncate(10000); \
        m = mmap.mmap(f.fileno(), 0); m[5000:5005] = b'hello'; m.flush(); m.close(); f.seek(5000); \
        assert f.read(5) == b'hello'; os.replace('m', 'n'); assert os.stat('n').st_size == 10000";
    shell(mount.path(), &format!("python3 -c \"{python}\""));
}
