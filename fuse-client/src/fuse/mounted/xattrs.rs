//! Extended attributes and ACLs.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod, umask};
use ozone_types::limits::XATTR_SIZE_MAX;

use super::*;
use crate::fake::xattrs::{ACCESS, Acl, DEFAULT};

/// Somebody, with a group that is the file's in the tests, or is not.
const USER: u32 = 65534;
const GROUP: u32 = 4711;

fn text(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap()
}

fn path_text(path: &Path) -> CString {
    text(path.as_os_str().as_bytes())
}

fn set(path: &Path, name: &[u8], value: &[u8], flags: i32) -> nix::Result<()> {
    let (path, name) = (path_text(path), text(name));
    // SAFETY: texts with a NUL, and a value of that length.
    let set = unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    };
    sys(set).map(drop)
}

/// The value and its length, into a buffer of `room` bytes.
fn get_into(path: &Path, name: &[u8], room: usize) -> nix::Result<(Vec<u8>, usize)> {
    let (path, name) = (path_text(path), text(name));
    let mut value = vec![0; room];
    // SAFETY: texts with a NUL, and a buffer of that length.
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) };
    let len = sys(len)? as usize;
    value.truncate(len);
    Ok((value, len))
}

fn get(path: &Path, name: &[u8]) -> nix::Result<Vec<u8>> {
    get_into(path, name, XATTR_SIZE_MAX).map(|(value, _)| value)
}

/// The list as the system call has it, and its length, into a buffer of `room` bytes.
fn list_into(path: &Path, room: usize) -> nix::Result<(Vec<u8>, usize)> {
    let path = path_text(path);
    let mut list = vec![0_u8; room];
    // SAFETY: a text with a NUL, and a buffer of that length.
    let len = unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), room) };
    let len = sys(len)? as usize;
    list.truncate(len);
    Ok((list, len))
}

/// The names, sorted.
fn list(path: &Path) -> Vec<String> {
    let all = list_into(path, 1 << 16).unwrap().0;
    let names = all.split_inclusive(|byte| *byte == 0);
    let mut names: Vec<_> = names
        .map(|name| String::from_utf8(name.strip_suffix(&[0]).unwrap().to_vec()).unwrap())
        .collect();
    names.sort();
    names
}

fn remove(path: &Path, name: &[u8]) -> nix::Result<()> {
    let (path, name) = (path_text(path), text(name));
    // SAFETY: texts with a NUL.
    sys(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// An ACL with an entry for [`USER`] and a mask.
fn acl(owner: u16, user: u16, group: u16, mask: u16, other: u16) -> Acl {
    Acl(vec![
        (Acl::USER_OBJ, owner, Acl::NO_ID),
        (Acl::USER, user, USER),
        (Acl::GROUP_OBJ, group, Acl::NO_ID),
        (Acl::MASK, mask, Acl::NO_ID),
        (Acl::OTHER, other, Acl::NO_ID),
    ])
}

fn stored_acl(path: &Path, name: &[u8]) -> nix::Result<Acl> {
    get(path, name).map(|value| Acl::parse(&value).unwrap())
}

#[test]
fn values_of_any_size_come_back() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, b"data").unwrap();
    assert_eq!(get(&path, b"user.a"), Err(Errno::ENODATA));
    assert_eq!(remove(&path, b"user.a"), Err(Errno::ENODATA));
    assert!(list(&path).is_empty());
    for size in [0, 1, 4095, 4097, XATTR_SIZE_MAX] {
        let value: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        set(&path, b"user.a", &value, 0).unwrap();
        assert_eq!(get(&path, b"user.a").unwrap(), value);
        assert_eq!(get_into(&path, b"user.a", 0).unwrap().1, size, "0 asks for the size");
        if size > 1 {
            assert_eq!(get_into(&path, b"user.a", size - 1), Err(Errno::ERANGE));
        }
    }
    let too_big = vec![0; XATTR_SIZE_MAX + 1];
    assert_eq!(set(&path, b"user.a", &too_big, 0), Err(Errno::E2BIG));

    set(&path, b"user.bc", b"", 0).unwrap();
    assert_eq!(list(&path), ["user.a", "user.bc"]);
    let len = b"user.a\0user.bc\0".len();
    assert_eq!(list_into(&path, 0).unwrap().1, len);
    assert_eq!(list_into(&path, len).unwrap().1, len);
    assert_eq!(list_into(&path, len - 1), Err(Errno::ERANGE));
    remove(&path, b"user.a").unwrap();
    assert_eq!(list(&path), ["user.bc"]);
    assert_eq!(fs::read(&path).unwrap(), b"data");
}

#[test]
fn an_attribute_may_have_to_exist_or_not() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, b"").unwrap();
    let (create, replace) = (libc::XATTR_CREATE, libc::XATTR_REPLACE);
    assert_eq!(set(&path, b"user.a", b"1", replace), Err(Errno::ENODATA));
    set(&path, b"user.a", b"2", create).unwrap();
    assert_eq!(set(&path, b"user.a", b"3", create), Err(Errno::EEXIST));
    set(&path, b"user.a", b"4", replace).unwrap();
    assert_eq!(set(&path, b"user.a", b"5", create | replace), Err(Errno::EINVAL));
    assert_eq!(get(&path, b"user.a").unwrap(), b"4");
}

#[test]
fn names_have_namespaces_and_limits() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, b"").unwrap();
    for name in [&b"user.x"[..], b"trusted.x", b"security.x"] {
        set(&path, name, name, 0).unwrap();
        assert_eq!(get(&path, name).unwrap(), name);
    }
    for name in [&b"system.x"[..], b"other.x", b"plain"] {
        assert_eq!(set(&path, name, b"", 0), Err(Errno::EOPNOTSUPP));
        assert_eq!(get(&path, name), Err(Errno::EOPNOTSUPP));
        assert_eq!(remove(&path, name), Err(Errno::EOPNOTSUPP));
    }
    assert_eq!(set(&path, &[b'u'; 256], b"", 0), Err(Errno::ERANGE));
    // Directories have them, too; of symlinks and the like, only root's.
    set(&mount.dir, b"user.x", b"root", 0).unwrap();
    assert_eq!(get(&mount.dir, b"user.x").unwrap(), b"root");
    let link = mount.path("l");
    symlink("f", &link).unwrap();
    assert_eq!(set(&link, b"user.x", b"", 0), Err(Errno::EPERM));
    set(&link, b"trusted.x", b"link", 0).unwrap();
    assert_eq!(get(&link, b"trusted.x").unwrap(), b"link");

    assert_eq!(list(&path), ["security.x", "trusted.x", "user.x"]);
    let as_somebody = as_user(USER, USER, &[], || list(&path));
    assert_eq!(as_somebody, ["security.x", "user.x"], "trusted.* is root's");

    let many = mount.path("many");
    fs::write(&many, b"").unwrap();
    let name = |i: u32| format!("user.{i:0250}").into_bytes();
    let fitting = (0..).take_while(|i| set(&many, &name(*i), b"", 0).is_ok()).count();
    assert_eq!(fitting, 256, "65,536 bytes with the NULs");
    assert_eq!(set(&many, &name(256), b"", 0), Err(Errno::ENOSPC));
    assert_eq!(list(&many).len(), 256);
}

#[test]
fn an_acl_and_the_mode_are_one() {
    let Some(mount) = Mount::new() else { return };
    mount.open_to_all();
    let path = mount.path("f");
    fs::write(&path, b"data").unwrap();
    mount.chmod("f", 0o600);
    let reads = || as_user(USER, USER, &[], || fs::read(&path).is_ok());
    assert!(!reads());
    let file = File::open(&path).unwrap();
    set(&path, ACCESS, &acl(6, 4, 0, 4, 0).bytes(), 0).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640, "at once");
    assert!(reads(), "allowed by name");
    assert_eq!(stored_acl(&path, ACCESS).unwrap(), acl(6, 4, 0, 4, 0));

    mount.chmod("f", 0o600);
    assert!(!reads(), "the mask is the group's bits");
    assert_eq!(stored_acl(&path, ACCESS).unwrap(), acl(6, 4, 0, 0, 0));
    set(&path, ACCESS, &acl(6, 4, 0, 4, 0).bytes(), 0).unwrap();
    assert!(reads());

    // What another client does to it counts from the next time on.
    mount.fake.set_acl("f", &acl(6, 0, 0, 4, 4));
    assert!(!reads(), "others may, but not this one");
    assert_eq!(stored_acl(&path, ACCESS).unwrap(), acl(6, 0, 0, 4, 4));

    remove(&path, ACCESS).unwrap();
    assert_eq!(mount.mode("f"), 0o644);
    assert!(reads(), "as others may");
    assert_eq!(get(&path, ACCESS), Err(Errno::ENODATA));
    for name in [ACCESS, DEFAULT] {
        assert_eq!(remove(&path, name), Ok(()), "there is always the mode");
    }
    // One that says no more than a mode is the mode.
    let base = Acl(acl(7, 0, 5, 0, 1).0.into_iter().filter(|e| e.2 == Acl::NO_ID).collect());
    let base = Acl(base.0.into_iter().filter(|e| e.0 != Acl::MASK).collect());
    set(&path, ACCESS, &base.bytes(), 0).unwrap();
    assert_eq!(mount.mode("f"), 0o751);
    assert_eq!(get(&path, ACCESS), Err(Errno::ENODATA));

    let malformed = Acl(acl(7, 7, 5, 5, 1).0.into_iter().rev().collect());
    assert_eq!(set(&path, ACCESS, &malformed.bytes(), 0), Err(Errno::EINVAL));
    assert_eq!(set(&path, DEFAULT, &base.bytes(), 0), Err(Errno::EACCES), "no directory");
    symlink("f", mount.path("l")).unwrap();
    let link = set(&mount.path("l"), ACCESS, &base.bytes(), 0);
    assert_eq!(link, Err(Errno::EOPNOTSUPP));
}

#[test]
fn setgid_falls_when_an_outsider_sets_an_acl() {
    let Some(mount) = Mount::new() else { return };
    mount.open_to_all();
    let path = mount.path("f");
    fs::write(&path, b"").unwrap();
    std::os::unix::fs::chown(&path, Some(USER), Some(GROUP)).unwrap();
    let set_acl = || set(&path, ACCESS, &acl(7, 0, 5, 5, 5).bytes(), 0).unwrap();
    for (uid, gid, groups, expected) in [
        (USER, GROUP, &[][..], 0o2755),
        (USER, USER, &[1, GROUP, 9], 0o2755),
        (0, 0, &[], 0o2755),
        (USER, USER, &[1, 9], 0o755),
    ] {
        mount.chmod("f", 0o2755);
        as_user(uid, gid, groups, set_acl);
        assert_eq!(mount.mode("f"), expected, "uid {uid}, gid {gid}, groups {groups:?}");
    }
}

#[test]
fn a_default_acl_takes_the_umasks_place() {
    let Some(mount) = Mount::new() else { return };
    // The umask is the process's, and other tests make files: all that is done here is done by one
    // that has unshared it.
    let made = |dir: &Path| {
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                // SAFETY: it takes a number. A thread gets its own umask, and keeps the mounts.
                sys(unsafe { libc::unshare(libc::CLONE_FS) }).unwrap();
                umask(Mode::from_bits_retain(0o027));
                let options = OpenOptions::new().write(true).create_new(true).mode(0o666).clone();
                options.open(dir.join("file")).unwrap();
                fs::create_dir(dir.join("dir")).unwrap();
                let all = Mode::from_bits_retain(0o666);
                mknod(&dir.join("fifo"), SFlag::S_IFIFO, all, 0).unwrap();
            });
            maker.join().unwrap();
        });
        ["file", "dir", "fifo"].map(|name| fs::metadata(dir.join(name)).unwrap().mode() & 0o7777)
    };
    let (plain, with_acl) = (mount.path("plain"), mount.path("acl"));
    for dir in [&plain, &with_acl] {
        fs::create_dir(dir).unwrap();
    }
    assert_eq!(made(&plain), [0o640, 0o750, 0o640], "the umask");
    assert_eq!(get(&plain.join("file"), ACCESS), Err(Errno::ENODATA));

    let default = acl(7, 7, 5, 7, 1);
    set(&with_acl, DEFAULT, &default.bytes(), 0).unwrap();
    assert_eq!(made(&with_acl), [0o660, 0o771, 0o660], "not the umask");
    for name in ["file", "fifo"] {
        let inherited = stored_acl(&with_acl.join(name), ACCESS).unwrap();
        assert_eq!(inherited, acl(6, 7, 5, 6, 0), "{name}");
    }
    assert_eq!(stored_acl(&with_acl.join("dir"), ACCESS).unwrap(), default);
    assert_eq!(stored_acl(&with_acl.join("dir"), DEFAULT).unwrap(), default);
    remove(&with_acl, DEFAULT).unwrap();
    assert!(list(&with_acl).is_empty());
}

#[test]
fn capabilities_fall_with_a_write() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, b"program").unwrap();
    // cap_net_raw, permitted and effective, in the format's second version.
    let capability = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    set(&path, b"security.capability", &capability, 0).unwrap();
    assert_eq!(get(&path, b"security.capability").unwrap(), capability);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    assert!(get(&path, b"security.capability").is_ok(), "to open it changes nothing");
    file.write_at(b"P", 0).unwrap();
    assert_eq!(get(&path, b"security.capability"), Err(Errno::ENODATA), "also root's");
}
