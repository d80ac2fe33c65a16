//! What system calls must do, on one mount and seen from another.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use crate::harness::{Cluster, Mount, long, shell};

fn errno(result: std::io::Result<impl Sized>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).expect("an error")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn names_links_and_attributes() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let at = |name: &str| mount.join(name);

    fs::create_dir_all(at("a/b/c")).unwrap();
    assert_eq!(fs::metadata(at("a")).unwrap().nlink(), 3);
    assert_eq!(errno(fs::remove_dir(at("a"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::create_dir(at("a"))), libc::EEXIST);
    assert_eq!(errno(File::open(at("a/none"))), libc::ENOENT);
    assert_eq!(errno(File::create(at(&"x".repeat(256)))), libc::ENAMETOOLONG);
    fs::write(at(&"x".repeat(255)), b"").unwrap();

    fs::write(at("f"), b"hello").unwrap();
    assert_eq!(errno(fs::create_dir(at("f/x"))), libc::ENOTDIR);
    fs::hard_link(at("f"), at("a/g")).unwrap();
    assert_eq!(fs::metadata(at("f")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(at("f")).unwrap().ino(), fs::metadata(at("a/g")).unwrap().ino());
    symlink("a/g", at("s")).unwrap();
    assert_eq!(fs::read_link(at("s")).unwrap().to_str(), Some("a/g"));
    assert_eq!(read(&at("s")), b"hello");

    fs::set_permissions(at("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    assert_eq!(fs::metadata(at("a/g")).unwrap().mode() & 0o7777, 0o4751);
    std::os::unix::fs::chown(at("f"), Some(1), Some(2)).unwrap();
    let meta = fs::metadata(at("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1, 2));
    shell(mount.path(), "touch -d '2001-02-03 04:05:06.123456789 UTC' f");
    let meta = fs::metadata(at("f")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (981_173_106, 123_456_789));

    shell(mount.path(), "mkfifo fifo && mknod null c 1 3 && echo x > null && test -p fifo");
}

#[test]
fn renames() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let at = |name: &str| mount.join(name);
    fs::write(at("one"), b"1").unwrap();
    fs::write(at("two"), b"2").unwrap();
    let open = File::open(at("two")).unwrap();
    fs::rename(at("one"), at("two")).unwrap();
    assert_eq!(read(&at("two")), b"1");
    let mut old = Vec::new();
    (&open).read_to_end(&mut old).unwrap();
    assert_eq!(old, b"2", "the replaced file lives while it is open");

    fs::create_dir_all(at("d/e")).unwrap();
    assert_eq!(errno(fs::rename(at("d"), at("d/e/f"))), libc::EINVAL);
    assert_eq!(errno(fs::rename(at("two"), at("d"))), libc::EISDIR);
    assert_eq!(errno(fs::rename(at("d"), at("two"))), libc::ENOTDIR);
    fs::create_dir(at("empty")).unwrap();
    fs::rename(at("d"), at("empty")).unwrap();
    assert_eq!(errno(fs::rename(at("two"), at("none/x"))), libc::ENOENT);

    let rename2 = |from: &str, to: &str, flags| {
        nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &at(from), nix::fcntl::AT_FDCWD, &at(to), flags)
    };
    use nix::fcntl::RenameFlags;
    assert_eq!(
        rename2("two", "empty", RenameFlags::RENAME_NOREPLACE),
        Err(nix::errno::Errno::EEXIST)
    );
    rename2("two", "empty", RenameFlags::RENAME_EXCHANGE).unwrap();
    assert!(fs::metadata(at("two")).unwrap().is_dir());
    assert_eq!(read(&at("empty")), b"1");

    // overlayfs's mark of a name that is gone stands where the name was, at once.
    fs::write(at("gone"), b"moved").unwrap();
    rename2("gone", "there", RenameFlags::RENAME_WHITEOUT).unwrap();
    assert_eq!(read(&at("there")), b"moved");
    let mark = fs::symlink_metadata(at("gone")).unwrap();
    assert_eq!((mark.mode(), mark.rdev()), (libc::S_IFCHR, 0));
    fs::hard_link(at("there"), at("same")).unwrap();
    rename2("same", "there", RenameFlags::RENAME_WHITEOUT).unwrap();
    assert_eq!(read(&at("same")), b"moved", "two names of one file: nothing happens");
    assert_eq!(
        rename2("none", "there", RenameFlags::RENAME_WHITEOUT),
        Err(nix::errno::Errno::ENOENT)
    );
    let both = RenameFlags::RENAME_WHITEOUT | RenameFlags::RENAME_NOREPLACE;
    assert_eq!(rename2("there", "same", both), Err(nix::errno::Errno::EEXIST));
    assert_eq!(read(&at("there")), b"moved");
}

#[test]
fn data_at_any_offset() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let path = mount.join("f");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(b"tail", 5_000_000_000).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    let mut middle = [1; 64];
    file.read_exact_at(&mut middle, 2_500_000_000).unwrap();
    assert_eq!(middle, [0; 64]);
    assert_eq!(file.metadata().unwrap().len(), 5_000_000_004);
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "holes take no space");
    file.set_len(2).unwrap();
    file.set_len(8).unwrap();
    assert_eq!(read(&path), b"he\0\0\0\0\0\0");
    let mut append = OpenOptions::new().append(true).open(&path).unwrap();
    append.write_all(b"end").unwrap();
    drop((file, append));
    mount.remount();
    assert_eq!(read(&mount.join("f")), b"he\0\0\0\0\0\0end");
}

#[test]
fn open_unlinked_files_live_until_they_are_closed() {
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    let path = mount.join("f");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.sync_all().unwrap();
    // Also when metad forgets everything that is not on its disk.
    cluster.kill(crate::harness::Role::Metad);
    cluster.restart(crate::harness::Role::Metad);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    file.write_all(b", and more").unwrap();
    file.sync_all().unwrap();
}

#[test]
fn directories_are_listed_whole_while_they_change() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    for n in 0..3000 {
        File::create(dir.join(format!("f{n}"))).unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 3000, "removing while listing loses and repeats nothing");
    assert_eq!(shell(&dir, "ls -a"), ".\n..\n");
    for n in 0..3000 {
        File::create(dir.join(format!("f{n}"))).unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        fs::rename(entry.unwrap().path(), dir.join(format!("g{seen}"))).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 3000, "what has been renamed is not found again");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3000);
}

/// The client holds neither names nor attributes of all of them.
#[test]
fn a_million_names_are_listed_in_constant_memory() {
    if !long() {
        return;
    }
    const NAMES: usize = 1_000_000;
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for n in (thread..NAMES).step_by(4) {
                    File::create(dir.join(format!("f{n}"))).unwrap();
                }
            });
        }
    });
    mount.remount();
    let dir = mount.join("d");
    let peak = |mount: &mut Mount| {
        let status = fs::read_to_string(format!("/proc/{}/status", mount.process().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
    };
    let before = peak(&mut mount);
    // Names that come and go meanwhile change nothing for the others.
    let (mut seen, mut sum) = (0usize, 0usize);
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(n) = name.strip_prefix('f').and_then(|n| n.parse::<usize>().ok()) else {
            continue;
        };
        (seen, sum) = (seen + 1, sum + n);
        if seen % 1000 == 0 {
            fs::rename(dir.join(&name), dir.join(format!("moved{n}"))).unwrap();
            File::create(dir.join(format!("new{n}"))).unwrap();
        }
    }
    assert_eq!((seen, sum), (NAMES, NAMES * (NAMES - 1) / 2));
    let grown = peak(&mut mount) - before;
    assert!(grown < 100, "listing took {grown} MiB of the client's memory");
}

#[test]
fn two_mounts_see_the_same() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.mount(), cluster.mount());
    // Written, not closed, not synced: the other sees it.
    let mut file = File::create(one.join("f")).unwrap();
    file.write_all(b"hello").unwrap();
    assert_eq!(fs::metadata(two.join("f")).unwrap().len(), 5);
    assert_eq!(read(&two.join("f")), b"hello");
    // Both have it open, and each sees what the other writes.
    let other = OpenOptions::new().read(true).write(true).open(two.join("f")).unwrap();
    for n in 0..50u8 {
        file.write_all_at(&[n; 100], 0).unwrap();
        let mut got = [0; 100];
        other.read_exact_at(&mut got, 0).unwrap();
        assert_eq!(got, [n; 100]);
        other.write_all_at(&[n ^ 0xff; 100], 5000).unwrap();
        let mut got = [0; 100];
        File::open(one.join("f")).unwrap().read_exact_at(&mut got, 5000).unwrap();
        assert_eq!(got, [n ^ 0xff; 100]);
    }
    // Names.
    fs::create_dir(one.join("d")).unwrap();
    fs::rename(two.join("d"), two.join("e")).unwrap();
    assert!(fs::metadata(one.join("d")).is_err() && fs::metadata(one.join("e")).is_ok());
    fs::remove_file(one.join("f")).unwrap();
    assert_eq!(errno(fs::metadata(two.join("f"))), libc::ENOENT);
    other.write_all_at(b"x", 0).unwrap();
    let mut got = [0; 1];
    other.read_exact_at(&mut got, 0).unwrap();
    assert_eq!(&got, b"x", "unlinked by one, still open on the other");
    // Truncated by one under a reader of the other.
    fs::write(one.join("t"), vec![7; 10_000]).unwrap();
    let reader = File::open(two.join("t")).unwrap();
    let mut got = vec![0; 10_000];
    reader.read_exact_at(&mut got, 0).unwrap();
    OpenOptions::new().write(true).open(one.join("t")).unwrap().set_len(10).unwrap();
    assert_eq!(reader.read_at(&mut got, 0).unwrap(), 10);
    assert_eq!(fs::metadata(two.join("t")).unwrap().len(), 10);
}

#[test]
fn statfs_tells_the_truth() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let disk = nix::sys::statvfs::statvfs(cluster.dir.path()).unwrap();
    let ours = nix::sys::statvfs::statvfs(mount.path()).unwrap();
    // Three block servers with as much room as this disk has free, three copies of every byte.
    let have = (ours.blocks() * ours.fragment_size()) as f64;
    let want = (disk.blocks_available() * disk.fragment_size()) as f64;
    assert!((0.8..=1.05).contains(&(have / want)), "{have} of {want}");
    assert!(ours.blocks_free() > 0 && ours.blocks_available() <= ours.blocks());
    assert_eq!(ours.name_max(), 255);
    let odd = OpenOptions::new().write(true).create_new(true).mode(0o600).open(mount.join("f"));
    assert_eq!(odd.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
}
