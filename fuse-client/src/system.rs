//! What the machine knows about mounts: /proc/self/mountinfo, refusals, readahead.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{Uid, geteuid};
use ozone_client::{AccessTime, AccessTimes};

use crate::options::KernelFlags;

/// The type that our mounts show.
pub(crate) const FS_TYPE: &str = "fuse.ozone";
/// Kernel readahead. Larger than one READ, so that several are under way.
const READ_AHEAD_KB: u32 = 4096;

/// The numbers, uid and gid, of a user whom this machine knows. Blocks, perhaps for the network.
pub(crate) fn user(name: &str) -> Option<(u32, u32)> {
    match nix::unistd::User::from_name(name) {
        Ok(user) => user.map(|user| (user.uid.as_raw(), user.gid.as_raw())),
        Err(err) => {
            tracing::debug!("whether there is a user '{name}' is not known: {err}");
            None
        }
    }
}

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// `major:minor` of the filesystem, which bind mounts of it share.
    pub device: String,
    pub mountpoint: PathBuf,
    pub options: String,
    pub fs_type: String,
    pub source: String,
    pub super_options: String,
}

impl MountEntry {
    fn parse(line: &str) -> Option<MountEntry> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (device, _root) = (fields.next()?, fields.next()?);
        let (mountpoint, options) = (fields.next()?, fields.next()?);
        let mut after = after.split(' ');
        Some(MountEntry {
            device: device.to_owned(),
            mountpoint: PathBuf::from(unescape(mountpoint)),
            options: options.to_owned(),
            fs_type: after.next()?.to_owned(),
            source: unescape(after.next()?).to_string_lossy().into_owned(),
            super_options: after.next().unwrap_or_default().to_owned(),
        })
    }

    /// Who mounted it.
    pub fn owner(&self) -> Uid {
        let mut options = self.super_options.split(',');
        let user = options.find_map(|option| option.strip_prefix("user_id="));
        user.and_then(|user| user.parse().ok()).map_or(Uid::from_raw(0), Uid::from_raw)
    }

    /// The flags that a remount keeps unless it names others.
    pub fn flags(&self) -> KernelFlags {
        let mount = |name: &str| self.options.split(',').any(|option| option == name);
        let filesystem = |name: &str| self.super_options.split(',').any(|option| option == name);
        let when = match () {
            () if mount("noatime") => AccessTime::Never,
            () if mount("relatime") => AccessTime::Relative,
            () => AccessTime::Always,
        };
        KernelFlags {
            read_only: mount("ro") || filesystem("ro"),
            nosuid: mount("nosuid"),
            nodev: mount("nodev"),
            noexec: mount("noexec"),
            access_times: AccessTimes { when, directories: !mount("nodiratime") },
            sync: filesystem("sync"),
            dirsync: filesystem("dirsync"),
        }
    }
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> OsString {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let octal = |b: &u8| (b'0'..=b'7').contains(b);
        match bytes.get(at + 1..at + 4) {
            Some(code) if bytes[at] == b'\\' && code.iter().all(octal) => {
                let digit = |i: usize| u32::from(code[i] - b'0');
                out.push((digit(0) * 64 + digit(1) * 8 + digit(2)) as u8);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(out)
}

/// All mounts of this process's namespace, in the order in which they were made.
pub(crate) fn mounts() -> io::Result<Vec<MountEntry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(MountEntry::parse).collect())
}

/// What is mounted on exactly this path, topmost.
pub(crate) fn mounted_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|entry| entry.mountpoint == path))
}

/// The absolute path of a mountpoint, without touching what may be mounted there and hang.
pub(crate) fn resolve_mountpoint(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let (parent, name) = (path.parent(), path.file_name());
    match (parent, name) {
        (Some(parent), Some(name)) if name != ".." => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}

/// Checks that something can be mounted there, and returns its absolute path. The error's text is
/// for the user.
pub(crate) fn check_mountpoint(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let missing = |err: io::Error| match err.kind() {
        io::ErrorKind::NotFound => format!("mount point {shown} does not exist"),
        _ => format!("cannot use {shown} as a mount point: {err}"),
    };
    let refuse = |entry: MountEntry| {
        let MountEntry { fs_type, source, .. } = entry;
        format!("{shown} is a mount already ({source}, type {fs_type}); unmount it first")
    };
    let unreadable = |err: io::Error| format!("cannot read /proc/self/mountinfo: {err}");
    let resolved = resolve_mountpoint(path).map_err(missing)?;
    if let Some(entry) = mounted_at(&resolved).map_err(unreadable)? {
        return Err(refuse(entry));
    }
    let resolved = resolved.canonicalize().map_err(missing)?;
    if let Some(entry) = mounted_at(&resolved).map_err(unreadable)? {
        return Err(refuse(entry)); // `path` was a symlink to it
    }
    if !resolved.metadata().map_err(missing)?.is_dir() {
        return Err(format!("mount point {shown} is not a directory"));
    }
    Ok(resolved)
}

/// The kernel reads 128 KiB ahead until it is told otherwise. Only root may; without, streams are slow
/// but right.
pub(crate) fn raise_read_ahead(device: &str) -> io::Result<()> {
    std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KB.to_string())
}

/// As mount(2) wants them.
pub(crate) fn mount_flags(flags: KernelFlags) -> MsFlags {
    let when = flags.access_times.when;
    let bits = [
        (flags.read_only, MsFlags::MS_RDONLY),
        (flags.nosuid, MsFlags::MS_NOSUID),
        (flags.nodev, MsFlags::MS_NODEV),
        (flags.noexec, MsFlags::MS_NOEXEC),
        (when == AccessTime::Never, MsFlags::MS_NOATIME),
        (when == AccessTime::Relative, MsFlags::MS_RELATIME),
        (when == AccessTime::Always, MsFlags::MS_STRICTATIME),
        (!flags.access_times.directories, MsFlags::MS_NODIRATIME),
        (flags.sync, MsFlags::MS_SYNCHRONOUS),
        (flags.dirsync, MsFlags::MS_DIRSYNC),
    ];
    bits.into_iter().filter(|(on, _)| *on).map(|(_, bit)| bit).collect()
}

/// Changes the flags of a mount. Errors: the kernel's, EPERM for an ordinary user.
pub(crate) fn remount(entry: &MountEntry, flags: KernelFlags) -> io::Result<()> {
    let none: Option<&str> = None;
    let source = Some(entry.source.as_str());
    let flags = MsFlags::MS_REMOUNT | mount_flags(flags);
    Ok(nix::mount::mount(source, &entry.mountpoint, none, flags, none)?)
}

/// Makes the allocator give back what is freed, for a process with a ceiling: with an arena per thread
/// and its own ideas of what is large, glibc holds up to twice what is in use (measured: a reader of
/// 600 MiB under a ceiling of 256 MiB took 290 MiB, and 180 MiB this way, at the same speed).
pub(crate) fn keep_memory_together() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two parameters of the allocator, which it takes at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 2 << 20);
    }
}

/// Whether statfs(2) on the mountpoint is answered.
pub(crate) fn answers(mountpoint: &Path) -> io::Result<()> {
    nix::sys::statfs::statfs(mountpoint)?;
    Ok(())
}

/// Unmounts. Errors: EBUSY, or fusermount3's words for it, while something is open.
pub(crate) fn unmount(mountpoint: &Path) -> io::Result<()> {
    match geteuid().is_root() {
        true => Ok(umount2(mountpoint, MntFlags::UMOUNT_NOFOLLOW)?),
        false => fusermount_unmount(mountpoint, false),
    }
}

/// Unmounts at once, whatever is open: aborts the connection, so that everything that waits gets an
/// error, and detaches the mount. An ordinary user can only detach.
pub(crate) fn abort(mountpoint: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return fusermount_unmount(mountpoint, true);
    }
    // Answers EBUSY when files are open, but the connection is aborted then.
    if umount2(mountpoint, MntFlags::MNT_FORCE).is_ok() {
        return Ok(());
    }
    match umount2(mountpoint, MntFlags::MNT_DETACH) {
        // Nothing is mounted there any more: somebody was quicker.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// What fusermount3 does for an ordinary user, who may not call umount2(2).
pub(crate) fn fusermount_unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let mut command = std::process::Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = OsString::from_vec(output.stderr);
    Err(io::Error::other(said.to_string_lossy().trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn mountinfo_lines() {
        let line = "77 28 0:53 / /mnt/a\\040b rw,nosuid,relatime shared:1 - fuse.ozone \
                    h1,h2:/vol1/bucket1 ro,user_id=0,group_id=0,allow_other";
        let entry = MountEntry::parse(line).unwrap();
        assert_eq!(entry.device, "0:53");
        assert_eq!(entry.mountpoint, Path::new("/mnt/a b"));
        assert_eq!(entry.source, "h1,h2:/vol1/bucket1");
        assert_eq!(entry.fs_type, FS_TYPE);
        let flags = KernelFlags { read_only: true, nosuid: true, ..KernelFlags::default() };
        assert_eq!(entry.flags(), flags);
        assert_eq!(MountEntry::parse("nonsense"), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("a\\040b\\134c\\011").as_bytes(), b"a b\\c\t");
        assert_eq!(unescape("a\\9\\04").as_bytes(), b"a\\9\\04");
    }

    #[test]
    fn mountpoints_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| check_mountpoint(path).unwrap_err();
        assert!(refusal(&dir.path().join("none")).contains("does not exist"));
        assert!(refusal(&dir.path().join("none/deep")).contains("does not exist"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(refusal(&file).contains("is not a directory"));
        assert!(refusal(Path::new("/proc")).contains("is a mount already"));
        assert!(refusal(Path::new("/proc/")).contains("is a mount already"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert!(refusal(&link).contains("is a mount already"));
        let good = dir.path().canonicalize().unwrap();
        assert_eq!(check_mountpoint(dir.path()).unwrap(), good);
    }
}
