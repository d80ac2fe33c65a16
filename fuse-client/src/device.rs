//! Opens /dev/fuse and mounts it: by mount(2) as root, through fusermount3 as an ordinary user.
//!
//! fuser could do both, but when its session ends it unmounts whatever is on the mountpoint by then,
//! which may be the next mount already.

use std::fs::OpenOptions;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::unistd::{getegid, geteuid};
use ozone_client::AccessTime;

use crate::options::KernelFlags;
use crate::system;

const DEVICE: &str = "/dev/fuse";
/// How fusermount3 learns the socket to answer on.
const SOCKET: &str = "_FUSE_COMMFD";

#[derive(Clone, Debug)]
pub(crate) struct DeviceOptions {
    /// What /proc/mounts shows, word for word.
    pub source: String,
    pub mountpoint: PathBuf,
    pub flags: KernelFlags,
    pub allow_other: bool,
}

/// Mounts; nothing is answered until the device is served. Errors: the kernel's, or fusermount3's in
/// its own words.
pub(crate) fn mount(options: &DeviceOptions) -> io::Result<OwnedFd> {
    match geteuid().is_root() {
        true => mount_directly(options),
        false => fusermount(&options.mountpoint, &fusermount_options(options)),
    }
}

fn mount_directly(options: &DeviceOptions) -> io::Result<OwnedFd> {
    let device: OwnedFd = OpenOptions::new().read(true).write(true).open(DEVICE)?.into();
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,subtype=ozone{}",
        device.as_raw_fd(),
        geteuid(),
        getegid(),
        if options.allow_other { ",allow_other" } else { "" },
    );
    let flags = system::mount_flags(options.flags);
    let (source, data) = (Some(options.source.as_str()), Some(data.as_str()));
    nix::mount::mount(source, &options.mountpoint, Some("fuse"), flags, data)?;
    Ok(device)
}

/// One comma-separated word. fusermount3 adds nosuid and nodev by itself.
fn fusermount_options(options: &DeviceOptions) -> String {
    let KernelFlags { read_only, noexec, access_times, sync, dirsync, .. } = options.flags;
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut list = format!("fsname={source},subtype=ozone,default_permissions");
    let words = [
        (options.allow_other, ",allow_other"),
        (read_only, ",ro"),
        (noexec, ",noexec"),
        (access_times.when == AccessTime::Never, ",noatime"),
        (sync, ",sync"),
        (dirsync, ",dirsync"),
    ];
    words.iter().filter(|(set, _)| *set).for_each(|(_, word)| list.push_str(word));
    list
}

fn fusermount(mountpoint: &Path, options: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let inherited = theirs.as_raw_fd();
    let mut command = Command::new("fusermount3");
    command.args(["-o", options, "--"]).arg(mountpoint);
    command.env(SOCKET, inherited.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec, only a system call on a descriptor that stays open until then.
    unsafe {
        command.pre_exec(move || {
            let socket = BorrowedFd::borrow_raw(inherited);
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => io::Error::other("fusermount3 is needed (package fuse3)"),
        _ => err,
    })?;
    drop(theirs);
    let device = receive(&ours);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    child.wait()?;
    device?.ok_or_else(|| io::Error::other(said.trim().to_owned()))
}

/// `None` if the other side closes the socket without sending a descriptor.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let (mut byte, mut space) = ([0; 1], nix::cmsg_space!(i32));
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            message => break message?,
        }
    };
    let descriptor = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(descriptor.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_commas_stays_one_word_for_fusermount3() {
        let options = DeviceOptions {
            source: "a,b:/vol/bucket".to_owned(),
            mountpoint: PathBuf::from("/mnt"),
            flags: KernelFlags { read_only: true, nosuid: true, ..KernelFlags::default() },
            allow_other: false,
        };
        assert_eq!(
            fusermount_options(&options),
            "fsname=a\\,b:/vol/bucket,subtype=ozone,default_permissions,ro"
        );
    }
}
