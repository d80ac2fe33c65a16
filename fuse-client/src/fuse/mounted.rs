//! What programs see of a mount, over a backend in memory. These need root and /dev/fuse.

mod locks;
mod ranges;
mod xattrs;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::device::{self, DeviceOptions};
use crate::fake::Fake;
use crate::options::KernelFlags;
use crate::system;
use crate::vfs::Vfs;

/// A mount for one test; unmounted by force at the end, whatever hangs in it.
struct Mount {
    fake: Arc<Fake>,
    kernel: Arc<kernel::Kernel>,
    dir: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
    served: Option<std::thread::JoinHandle<()>>,
    _temp: tempfile::TempDir,
}

impl Mount {
    /// `None` where this machine lets nobody mount.
    fn new() -> Option<Mount> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        Some(Mount::make(true))
    }

    fn make(allow_other: bool) -> Mount {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fake = Fake::new();
        let vfs = runtime.block_on(Vfs::new(fake.clone())).unwrap();
        let device = device::mount(&DeviceOptions {
            source: "h1,h2:/vol1/bucket1".to_owned(),
            mountpoint: dir.clone(),
            flags: KernelFlags::default(),
            allow_other,
        });
        let (vfs_too, handle) = (vfs.clone(), runtime.handle().clone());
        let looking = crate::look::Looking::new(ozone_platform::real_clock());
        let session = Session::start(vfs_too, looking, handle, device.unwrap(), 2).unwrap();
        let kernel = session.kernel();
        vfs.set_page_cache(kernel.clone());
        let served = Some(std::thread::spawn(move || session.run().unwrap()));
        Mount { fake, kernel, dir, runtime: Some(runtime), served, _temp: temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn inode_of(&self, path: &Path) -> ozone_types::InodeId {
        ozone_types::InodeId(fs::metadata(path).unwrap().ino())
    }

    /// Lets every user in, and make files.
    fn open_to_all(&self) {
        for (dir, mode) in [(self.dir.parent().unwrap(), 0o755), (&self.dir, 0o777)] {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().mode() & 0o7777
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A shell in the mount; `$f` is a file in it.
    fn shell(&self, script: &str) -> Child {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).env("f", self.path("f")).current_dir("/");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        shell.spawn().unwrap()
    }

    /// The same while the backend hangs; returns when the shell waits in the mount.
    fn stuck_shell(&self, script: &str) -> Child {
        let before = self.fake.stuck.load(Ordering::SeqCst);
        let shell = self.shell(script);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.fake.stuck.load(Ordering::SeqCst) == before {
            assert!(Instant::now() < deadline, "'{script}' does not wait");
            std::thread::sleep(Duration::from_millis(2));
        }
        shell
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.fake.hang(false);
        if let Ok(Some(_)) = system::mounted_at(&self.dir) {
            system::abort(&self.dir).unwrap();
        }
        if let Some(served) = self.served.take() {
            served.join().unwrap();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The result of a system call.
fn sys(result: impl TryInto<i64>) -> nix::Result<i64> {
    match result.try_into().unwrap_or(i64::MAX) {
        ..0 => Err(nix::errno::Errno::last()),
        value => Ok(value),
    }
}

/// Does `work` as a user, for the filesystem, with these groups.
fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            // The system calls themselves: libc's functions would change every thread.
            // SAFETY: `groups` outlives the call; the others take numbers.
            unsafe {
                let set = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
                assert_eq!(set, 0, "setgroups");
                libc::setfsgid(gid);
                libc::setfsuid(uid);
            }
            work()
        });
        user.join().unwrap()
    })
}

/// Waits for a process to end; a test that must not hang says so by `None`.
fn ends_within(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

#[test]
fn proc_mounts_shows_type_and_source_word_for_word() {
    let Some(mount) = Mount::new() else { return };
    let entry = system::mounted_at(&mount.dir).unwrap().unwrap();
    assert_eq!(entry.fs_type, system::FS_TYPE);
    assert_eq!(entry.source, "h1,h2:/vol1/bucket1");
    for option in ["default_permissions", "allow_other"] {
        assert!(entry.super_options.split(',').any(|o| o == option), "{entry:?}");
    }
    system::raise_read_ahead(&entry.device).unwrap();
    assert!(system::check_mountpoint(&mount.dir).unwrap_err().contains("is a mount already"));
}

#[test]
fn files_names_and_attributes() {
    let Some(mount) = Mount::new() else { return };
    let (a, b) = (mount.path("a"), mount.path("b"));
    fs::write(&a, b"hello").unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"hello");
    fs::rename(&a, &b).unwrap();
    assert_eq!(fs::metadata(&a).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    fs::hard_link(&b, &a).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
    fs::remove_file(&b).unwrap();
    symlink("a", &b).unwrap();
    assert_eq!(fs::read_link(&b).unwrap(), Path::new("a"));
    assert_eq!(fs::read(&b).unwrap(), b"hello");
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/x"), b"").unwrap();
    let full = fs::remove_dir(mount.path("d")).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOTEMPTY));
    let long = "n".repeat(256);
    let err = File::create(mount.path(&long)).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::ENAMETOOLONG));

    let file = OpenOptions::new().write(true).open(&a).unwrap();
    file.set_len(2).unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"he");
    // Before 1970, and with nanoseconds.
    let before = std::time::SystemTime::UNIX_EPOCH - Duration::new(1, 200_000_000);
    file.set_modified(before).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().modified().unwrap(), before);
    assert_eq!(fs::metadata(&a).unwrap().mtime_nsec(), 800_000_000);
}

#[test]
fn listings_of_any_length_are_complete() {
    let Some(mount) = Mount::new() else { return };
    let dir = mount.path("d");
    fs::create_dir(&dir).unwrap();
    let names: Vec<String> = (0..3000).map(|i| format!("a name of some length {i:05}")).collect();
    for name in &names {
        File::create(dir.join(name)).unwrap();
    }
    // Twice: the kernel asks for attributes along with the names only at first.
    for _ in 0..2 {
        let listed: Vec<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(listed, names);
    }
    let all = Command::new("ls").arg("-lai").arg(&dir).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    assert_eq!(all.lines().count(), names.len() + 3, "with the total, '.' and '..'");
    assert!(!all.contains('?'), "every entry has attributes");
}

#[test]
fn the_umask_and_setgid_rules_are_applied() {
    let Some(mount) = Mount::new() else { return };
    mount.open_to_all();
    let made = mount.shell("umask 027; : >$f").wait_with_output().unwrap();
    assert!(made.status.success());
    assert_eq!(mount.mode("f"), 0o640);
    let chmod = |mode| mount.chmod("f", mode);
    let mode = || mount.mode("f");
    let as_nobody = |script: &str| {
        let status = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
            .env("f", mount.path("f"))
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    };
    chmod(0o6777);
    as_nobody("echo x >>$f");
    assert_eq!(mode(), 0o777, "a write by somebody else clears both");
    chmod(0o6777);
    as_nobody(": >$f");
    assert_eq!(mode(), 0o777, "O_TRUNC, too");
    chmod(0o6777);
    fs::write(mount.path("f"), "root").unwrap();
    assert_eq!(mode(), 0o6777, "root's writes do not");
    std::os::unix::fs::chown(mount.path("f"), Some(65534), Some(65534)).unwrap();
    assert_eq!(mode(), 0o777, "chown does");
}

#[test]
fn the_kernel_keeps_what_it_may() {
    let Some(mount) = Mount::new() else { return };
    mount.open_to_all();
    let (nothing, long) = (Duration::ZERO, Duration::from_secs(3600));
    fs::write(mount.path("f"), "a").unwrap();
    for (keep, len) in [(nothing, 3), (long, 1)] {
        *mount.fake.keep.lock() = keep;
        mount.fake.overwrite("f", b"a");
        assert_eq!(fs::metadata(mount.path("f")).unwrap().len(), 1);
        mount.fake.overwrite("f", b"abc");
        assert_eq!(fs::metadata(mount.path("f")).unwrap().len(), len, "kept for {keep:?}");
    }
    // What is not there, until this mount makes it.
    assert!(!mount.path("g").exists());
    mount.fake.add("g");
    assert!(!mount.path("g").exists(), "kept");
    fs::rename(mount.path("f"), mount.path("g")).unwrap();
    assert_eq!(fs::metadata(mount.path("g")).unwrap().len(), 3, "asked again after a change");
    // Told to forget.
    let inode = mount.inode_of(&mount.path("g"));
    mount.fake.overwrite("g", b"ab");
    assert_eq!(fs::metadata(mount.path("g")).unwrap().len(), 3, "kept");
    ozone_client::Kernel::invalidate_attr(&*mount.kernel, inode);
    assert_eq!(fs::metadata(mount.path("g")).unwrap().len(), 2);
    // A write takes setuid from a file without the kernel's doing.
    mount.chmod("g", 0o4777);
    assert_eq!(mount.mode("g"), 0o4777);
    as_user(65534, 65534, &[], || fs::write(mount.path("g"), "new").unwrap());
    assert_eq!(mount.mode("g"), 0o777);
}

#[test]
fn data_is_cached_under_a_lease_until_it_is_recalled() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, b"old data").unwrap();
    let mut file = File::open(&path).unwrap();
    let mut read = || {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(read(), "old data");
    let reads = mount.fake.reads.load(Ordering::SeqCst);
    assert_eq!(read(), "old data");
    assert_eq!(mount.fake.reads.load(Ordering::SeqCst), reads, "from the page cache");

    mount.fake.overwrite("f", b"new data");
    let inode = mount.inode_of(&path);
    ozone_client::Kernel::invalidate_data(&*mount.kernel, inode);
    assert_eq!(read(), "new data");

    // The lease is gone while the file is open: what is read now must not stay cached.
    mount.fake.cacheable.store(false, Ordering::SeqCst);
    ozone_client::Kernel::invalidate_data(&*mount.kernel, inode);
    assert_eq!(read(), "new data");
    for text in ["3rd data", "4th data", "5th data"] {
        overwrite_shown(&mount, text.as_bytes());
        assert_eq!(read(), text, "the kernel kept pages without a lease");
    }
}

/// As metad has another client do: when the kernel has dropped what it shows.
fn overwrite_shown(mount: &Mount, data: &[u8]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while mount.fake.shown.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "the kernel was not told to drop pages");
        std::thread::yield_now();
    }
    mount.fake.overwrite("f", data);
}

#[test]
fn appends_go_to_the_true_end() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    log.write_all(b"one ").unwrap();
    let reader = File::open(&path).unwrap();
    let mut start = [0; 4];
    reader.read_exact_at(&mut start, 0).unwrap();
    mount.fake.overwrite("f", b"one two ");
    log.write_all(b"three").unwrap();
    let mut all = [0; 13];
    reader.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"one two three");
    assert_eq!(fs::read(&path).unwrap(), b"one two three");
}

#[test]
fn a_mapping_is_written_back() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, vec![b'-'; 10_000]).unwrap();
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\n\
                  m[5000:5003]=b'abc'\nm.flush()\nprint(m[4999:5004])";
    let out = Command::new("python3").arg("-c").arg(script).arg(&path).output();
    let Ok(out) = out else { return eprintln!("skipped: no python3") };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(&fs::read(&path).unwrap()[4999..5004], b"-abc-");
}

#[test]
fn whoever_waits_in_the_mount_can_be_killed() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.path("f"), b"data").unwrap();
    mount.fake.hang(true);
    for script in ["exec cat $f", "exec ls -l $f", "exec mkdir $f.d", "exec ls ${f%/*}/"] {
        let mut child = mount.stuck_shell(script);
        child.kill().unwrap();
        let status = ends_within(&mut child, Duration::from_secs(3));
        assert!(status.is_some(), "'{script}' ignored SIGKILL");
    }
    // Ctrl-C, too, on a program without a handler; whoever runs the tests in the background ignores it, and
    // hands that on.
    let mut child = mount.stuck_shell("exec env --default-signal=INT cat $f");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(ends_within(&mut child, Duration::from_secs(3)).is_some(), "ignored SIGINT");
    mount.fake.hang(false);
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"data", "the mount goes on");
}

#[test]
fn whoever_has_a_file_open_can_be_killed() {
    let Some(mount) = Mount::new() else { return };
    // Its death closes the file, which asks us to flush.
    let mut child = mount.shell("exec 3>>$f; echo open; read forever");
    let mut said = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    mount.fake.hang(true);
    child.kill().unwrap();
    assert!(ends_within(&mut child, Duration::from_secs(3)).is_some(), "cannot die");
}

#[test]
fn df_answers_with_all_servers_gone() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.path("f"), b"data").unwrap();
    // Nor does it matter whose the root is: the kernel asks for its ACL for all but the owner.
    std::os::unix::fs::chown(&mount.dir, Some(65534), Some(65534)).unwrap();
    assert_eq!(fs::metadata(&mount.dir).unwrap().uid(), 65534);
    mount.fake.hang(true);
    // Others are stuck already, more than there are reader threads.
    let mut stuck: Vec<Child> = (0..8).map(|_| mount.stuck_shell("exec cat $f")).collect();
    for limit in [1500, 500] {
        let start = Instant::now();
        let mut df = Command::new("df");
        let mut df = df.arg("-B1").arg(&mount.dir).stdout(Stdio::piped()).spawn().unwrap();
        let status = ends_within(&mut df, Duration::from_secs(20)).expect("df hangs");
        assert!(status.success());
        let took = start.elapsed();
        assert!(took < Duration::from_millis(limit), "df took {took:?}");
        let mut text = String::new();
        df.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("1099511627776"), "{text}");
    }
    // `umount -f` sets everybody free with an error.
    system::abort(&mount.dir).unwrap();
    for child in &mut stuck {
        assert!(ends_within(child, Duration::from_secs(5)).is_some(), "still stuck");
    }
}

#[test]
fn what_is_not_supported_says_so() {
    let Some(mount) = Mount::new() else { return };
    let tmpfile = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(&mount.dir);
    assert_eq!(tmpfile.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    let path = mount.path("f");
    fs::write(&path, [7; 4096]).unwrap();
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
    assert_eq!(direct.unwrap().read_at(&mut [0; 4096], 0).unwrap(), 4096, "O_DIRECT is");
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    let installed = Command::new("fusermount3").arg("-V").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !installed || !Path::new("/dev/fuse").exists() {
        return eprintln!("skipped: needs root, /dev/fuse and fusermount3");
    }
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
    // Where users may open /dev/fuse, as udev has it: in a mount namespace of the test's own.
    let script = "mknod $TMPDIR/fuse c 10 229 && chmod 666 $TMPDIR/fuse && \
        mount --bind $TMPDIR/fuse /dev/fuse && \
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "fuse::mounted::as_an_ordinary_user", "--ignored", "--nocapture"])
        .env("TMPDIR", home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run as an ordinary user by the test above"]
fn as_an_ordinary_user() {
    let mount = Mount::make(false);
    let entry = system::mounted_at(&mount.dir).unwrap().unwrap();
    assert_eq!(entry.fs_type, system::FS_TYPE);
    assert_eq!(entry.source, "h1,h2:/vol1/bucket1");
    assert!(entry.flags().nosuid && entry.flags().nodev);
    // The root directory belongs to somebody else.
    let denied = fs::write(mount.path("f"), b"data").unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(libc::EACCES));
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 0);
}
