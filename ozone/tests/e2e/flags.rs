//! chattr, lsattr, and file handles, by the programs and system calls that use them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::{Cluster, shell};

#[test]
fn what_chattr_protects_stays() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    shell(
        mount.path(),
        "mkdir d; echo kept > d/f; echo log > d/log
         exec 5>> d/f
         chattr +i d/f; chattr +a d/log
         ! echo more > d/f; ! echo more >> d/f; ! rm -f d/f; ! mv d/f d/g; ! ln d/f d/g
         ! chmod 600 d/f; ! touch d/f; ! setfattr -n user.a -v 1 d/f; ! truncate -s 0 d/f
         ! echo late >&5
         echo more >> d/log; touch d/log
         ! echo over > d/log; ! truncate -s 0 d/log; ! rm -f d/log; ! chmod 600 d/log
         chattr +i d
         ! touch d/new; ! mv d/f f; ! rmdir d
         lsattr -d d | grep -q '^----i'
         lsattr d/f | grep -q '^----i'
         lsattr d/log | grep -q '^-----a'
         ! chattr +c d/f",
    );
    // Another mount, and another life.
    let other = cluster.mount();
    shell(other.path(), "! echo more >> d/f; ! rm -f d/log; [ \"$(cat d/log)\" = 'log\nmore' ]");
    drop(other);
    mount.remount();
    let as_nobody = "setpriv --reuid nobody --regid nogroup --clear-groups";
    shell(
        mount.path(),
        &format!(
            "[ \"$(cat d/f)\" = kept ]; ! rm -rf d; chmod 777 .
             touch mine; chown nobody mine
             ! {as_nobody} chattr +i mine
             {as_nobody} chattr +d mine
             chattr -R -i -a d; echo more >> d/f; rm -r d"
        ),
    );
}

#[test]
fn a_flag_of_one_mount_binds_the_other() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.mount(), cluster.mount());
    std::fs::write(one.join("f"), b"first ").unwrap();
    let mut open = OpenOptions::new().append(true).open(one.join("f")).unwrap();
    open.write_all(b"second ").unwrap();
    shell(two.path(), "chattr +i f");
    assert_eq!(std::fs::read(two.join("f")).unwrap(), b"first second ");
    let refused = open.write_all(b"third").and_then(|()| open.sync_all()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    assert_eq!(std::fs::read(two.join("f")).unwrap(), b"first second ");
}

#[test]
fn reading_what_has_noatime_leaves_no_trace() {
    let cluster = Cluster::start();
    let mount = cluster.mount_with("strictatime");
    let seen = shell(
        mount.path(),
        "echo x > f; echo x > g; chattr +A f; touch -d 2001-01-01 f g
         cat f g > /dev/null; stat -c %X f; stat -c %X g",
    );
    let times: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(times[0], shell(mount.path(), "date -d 2001-01-01 +%s").trim());
    assert_ne!(times[1], times[0], "the other one's reading is seen");
}

/// What name_to_handle_at(2) tells, as the system call has it.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

fn handle_of(path: &Path) -> Handle {
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut mount = 0;
    // SAFETY: name and handle live, and handle says how much room it has.
    let done = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            name.as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            0,
        )
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    handle
}

fn open_handle(mount: &Path, handle: &mut Handle) -> io::Result<File> {
    let mount = File::open(mount)?;
    // SAFETY: the handle lives and is one that the kernel has made.
    let fd = unsafe {
        libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut *handle).cast(), libc::O_RDONLY)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

#[test]
fn a_file_handle_outlives_names_caches_and_mounts() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    shell(mount.path(), "mkdir -p d/e; echo text > d/e/f; echo gone > d/e/g");
    let inode = |path| std::fs::metadata(path).unwrap().ino();
    let (dir, file) = (inode(mount.join("d/e")), inode(mount.join("d/e/f")));
    let mut handles: Vec<Handle> =
        ["d/e/f", "d/e", "", "d/e/g"].iter().map(|name| handle_of(&mount.join(name))).collect();
    shell(mount.path(), "mv d x; mv x/e/f x/renamed; rm x/e/g");
    for _ in 0..2 {
        let [f, e, root, gone] = &mut handles[..] else { unreachable!() };
        let found = open_handle(mount.path(), f).unwrap();
        assert_eq!(io::read_to_string(&found).unwrap(), "text\n");
        assert_eq!(found.metadata().unwrap().ino(), file);
        assert_eq!(open_handle(mount.path(), e).unwrap().metadata().unwrap().ino(), dir);
        assert!(open_handle(mount.path(), root).unwrap().metadata().unwrap().is_dir());
        let gone = open_handle(mount.path(), gone).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESTALE));
        drop(found);
        mount.remount();
    }
}
