//! The operations, each on a mount and in the model.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::time::{Duration, SystemTime};

use nix::fcntl::RenameFlags;
use ozone_testkit::model::{
    CloneRange, NewNode, Punch, RenameMode, SetAttr, SetXattr, Write as Written,
};
use ozone_types::{ErrorCode, FileKind, InodeId, Timestamp};

use super::calls::{self, errno};
use super::driver::{Driver, Open, SET_TIMES};

/// Each of them must have been done at least once in a run.
pub const OPERATIONS: &[&str] = &[
    "create",
    "mkdir",
    "symlink",
    "link",
    "unlink",
    "rmdir",
    "rename",
    "open",
    "write",
    "append",
    "truncate",
    "read",
    "punch",
    "copy",
    "chmod",
    "utimens",
    "setxattr",
    "getxattr",
    "removexattr",
    "listxattr",
    "readlink",
    "list",
    "stat",
];
/// Open files on each mount.
const HANDLES: usize = 4;
/// Bytes of a file, about.
const SIZE: u64 = 20_000;
const XATTRS: [&[u8]; 3] = [b"user.one", b"user.two", b"trusted.three"];

/// The mask of this process, which no test changes.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(mask.trim(), 8).unwrap()
}

impl Driver {
    pub fn act(&mut self, mount: usize) {
        match self.random.below(28) {
            0..=2 => self.create(mount),
            3 | 4 => self.make_dir(mount),
            5 => self.make_symlink(mount),
            6 | 7 => self.make_link(mount),
            8 => self.remove(mount, false),
            9 => self.remove(mount, true),
            10..=12 => self.rename(mount),
            13 | 14 => self.open_file(mount),
            15 => drop(self.pick(mount).map(|at| self.open[mount].swap_remove(at))),
            16 | 17 => self.write(mount),
            18 => self.append(mount),
            19 => self.truncate(mount),
            20 | 21 => self.read(mount),
            22 => self.punch_or_copy(mount),
            23 => self.chmod(mount),
            24 => self.utimens(mount),
            25 | 26 => self.xattr(mount),
            _ => {
                let names = self.place();
                match self.random.below(2) {
                    0 => self.list(mount, &names),
                    _ => self.read_link(mount, &names),
                }
            }
        }
    }

    fn new_node(&self, mode: u32, kind: u32) -> NewNode {
        NewNode { inode: self.fresh(), mode: kind | mode, umask: umask(), uid: 0, gid: 0, rdev: 0 }
    }

    fn create(&mut self, mount: usize) {
        let (names, mode) = (self.place(), [0o644, 0o600, 0o666][self.random.below(3) as usize]);
        self.doing = format!("create {names:?} on {mount}");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        let file = options.open(self.path(mount, &names)).map_err(errno);
        let (now, new) = (self.now(), self.new_node(mode, libc::S_IFREG));
        let made = self
            .within(&names)
            .and_then(|(dir, name)| self.model.create(now, dir, name, new).map(drop));
        if self.compare("create", file.as_ref().map(drop).map_err(|err| *err), made) {
            let file = file.unwrap();
            self.made(new.inode, file.metadata().unwrap().ino());
            self.keep(mount, Open { file, inode: new.inode, write: true });
        }
    }

    fn make_dir(&mut self, mount: usize) {
        let names = self.place();
        self.doing = format!("mkdir {names:?} on {mount}");
        let path = self.path(mount, &names);
        let done = DirBuilder::new().mode(0o755).create(&path).map_err(errno);
        let (now, new) = (self.now(), self.new_node(0o755, 0));
        let made = self
            .within(&names)
            .and_then(|(dir, name)| self.model.mkdir(now, dir, name, new).map(drop));
        if self.compare("mkdir", done, made) {
            self.made(new.inode, fs::metadata(path).unwrap().ino());
        }
    }

    fn make_symlink(&mut self, mount: usize) {
        let names = self.place();
        let target = format!("nowhere/{}", self.random.below(1000));
        self.doing = format!("symlink {names:?} on {mount}");
        let path = self.path(mount, &names);
        let done = symlink(&target, &path).map_err(errno);
        let (now, new) = (self.now(), self.new_node(0o777, 0));
        let made = self.within(&names).and_then(|(dir, name)| {
            self.model.symlink(now, dir, name, target.as_bytes(), new).map(drop)
        });
        if self.compare("symlink", done, made) {
            self.made(new.inode, fs::symlink_metadata(path).unwrap().ino());
        }
    }

    fn make_link(&mut self, mount: usize) {
        let (names, new) = (self.place(), self.place());
        self.doing = format!("link {names:?} as {new:?} on {mount}");
        let done = fs::hard_link(self.path(mount, &names), self.path(mount, &new)).map_err(errno);
        let now = self.now();
        let made = self.find(&names).and_then(|attr| {
            let (dir, name) = self.within(&new)?;
            self.model.link(now, attr.inode, dir, name).map(drop)
        });
        self.compare("link", done, made);
    }

    fn remove(&mut self, mount: usize, directory: bool) {
        let names = self.place();
        let operation = if directory { "rmdir" } else { "unlink" };
        self.doing = format!("{operation} {names:?} on {mount}");
        let path = self.path(mount, &names);
        let done = if directory { fs::remove_dir(path) } else { fs::remove_file(path) };
        let now = self.now();
        let made = self.within(&names).and_then(|(dir, name)| match directory {
            true => self.model.rmdir(now, dir, name).map(drop),
            false => self.model.unlink(now, dir, name).map(drop),
        });
        self.compare(operation, done.map_err(errno), made);
    }

    fn rename(&mut self, mount: usize) {
        let (names, new) = (self.place(), self.place());
        let (flags, mode) = match self.random.below(4) {
            0 => (RenameFlags::RENAME_NOREPLACE, RenameMode::NoReplace),
            1 => (RenameFlags::RENAME_EXCHANGE, RenameMode::Exchange),
            _ => (RenameFlags::empty(), RenameMode::Replace),
        };
        self.doing = format!("rename {names:?} to {new:?} on {mount}, {mode:?}");
        let (from, to) = (self.path(mount, &names), self.path(mount, &new));
        // Where the kernel still knows a directory by the name that it had before the other mount moved
        // it, it finds out by a look, as mv(1) takes one, but not within a rename: that is ESTALE.
        for path in [&from, &to] {
            let _ = fs::symlink_metadata(path);
        }
        let done = calls::rename(&from, &to, flags);
        let now = self.now();
        let made = self.within(&names).and_then(|from| {
            let to = self.within(&new)?;
            self.model.rename(now, from, to, mode).map(drop)
        });
        self.compare("rename", done, made);
    }

    fn open_file(&mut self, mount: usize) {
        let (names, write) = (self.place(), self.random.below(2) == 0);
        self.doing = format!("open {names:?} on {mount}, write {write}");
        let mut options = OpenOptions::new();
        options.read(true).write(write).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(self.path(mount, &names)).map_err(errno);
        let found = self.find(&names).and_then(|attr| match attr.kind {
            FileKind::Symlink => Err(ErrorCode::Loop),
            FileKind::Directory if write => Err(ErrorCode::IsDir),
            _ => Ok(attr),
        });
        let attr = found.clone();
        let got = file.as_ref().map(drop).map_err(|err| *err);
        if self.compare("open", got, found.map(drop)) {
            let (file, attr) = (file.unwrap(), attr.unwrap());
            self.compare_attr(&file.metadata().unwrap(), &attr);
            if attr.kind == FileKind::Regular {
                self.keep(mount, Open { file, inode: attr.inode, write });
            }
        }
    }

    fn keep(&mut self, mount: usize, open: Open) {
        if self.open[mount].len() == HANDLES {
            let at = self.random.below(HANDLES as u64) as usize;
            self.open[mount].swap_remove(at);
        }
        self.open[mount].push(open);
    }

    /// Some open file of the mount, if there is any.
    fn pick(&mut self, mount: usize) -> Option<usize> {
        let count = self.open[mount].len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// One that can be written, and its inode.
    fn pick_writable(&mut self, mount: usize) -> Option<(usize, InodeId)> {
        let at = self.pick(mount)?;
        let open = &self.open[mount][at];
        open.write.then_some((at, open.inode))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let most = if self.random.below(4) == 0 { 6000 } else { 200 };
        let len = 1 + self.random.below(most);
        self.random.bytes(len as usize)
    }

    fn write(&mut self, mount: usize) {
        let Some((at, inode)) = self.pick_writable(mount) else { return };
        let (offset, bytes) = (self.random.below(SIZE), self.bytes());
        self.doing = format!("write {} at {offset} of {inode} on {mount}", bytes.len());
        let done = self.open[mount][at].file.write_all_at(&bytes, offset).map_err(errno);
        let (now, size) = (self.now(), offset + bytes.len() as u64);
        let write = Written { runs: vec![(offset, bytes)], size, ..Written::default() };
        let made = self.model.write(now, inode, &write).map(drop);
        self.compare("write", done, made);
    }

    fn append(&mut self, mount: usize) {
        let (names, bytes) = (self.place(), self.bytes());
        self.doing = format!("append {} to {names:?} on {mount}", bytes.len());
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NOFOLLOW);
        let done = options.open(self.path(mount, &names)).and_then(|mut f| f.write_all(&bytes));
        let now = self.now();
        let made = self.find(&names).and_then(|attr| match attr.kind {
            FileKind::Symlink => Err(ErrorCode::Loop),
            FileKind::Directory => Err(ErrorCode::IsDir),
            _ => {
                let size = attr.size + bytes.len() as u64;
                let write = Written { runs: vec![(attr.size, bytes)], size, ..Written::default() };
                self.model.write(now, attr.inode, &write).map(drop)
            }
        });
        self.compare("append", done.map_err(errno), made);
    }

    fn truncate(&mut self, mount: usize) {
        let Some((at, inode)) = self.pick_writable(mount) else { return };
        let size = self.random.below(SIZE);
        self.doing = format!("truncate {inode} to {size} on {mount}");
        let done = self.open[mount][at].file.set_len(size).map_err(errno);
        let (now, set) = (self.now(), SetAttr { size: Some(size), ..SetAttr::default() });
        let made = self.model.setattr(now, inode, &set).map(drop);
        self.compare("truncate", done, made);
    }

    fn read(&mut self, mount: usize) {
        let Some(at) = self.pick(mount) else { return };
        let inode = self.open[mount][at].inode;
        let (offset, len) = (self.random.below(SIZE) as usize, self.random.below(8000) as usize);
        self.doing = format!("read {len} at {offset} of {inode} on {mount}");
        let mut bytes = vec![0; len];
        let got = self.open[mount][at].file.read_at(&mut bytes, offset as u64);
        let got = got.map_err(errno).map(|len| bytes[..len].to_vec());
        let expected = self.model.read(inode).map(|all| {
            let from = offset.min(all.len());
            all[from..(from + len).min(all.len())].to_vec()
        });
        self.compare("read", got, expected);
    }

    fn punch_or_copy(&mut self, mount: usize) {
        let Some((to, inode)) = self.pick_writable(mount) else { return };
        let Some(from) = self.pick(mount) else { return };
        let (offset, length) = (self.random.below(SIZE), 1 + self.random.below(SIZE / 2));
        let (now, file) = (self.now(), &self.open[mount][to].file);
        if self.random.below(2) == 0 {
            self.doing = format!("punch {length} at {offset} of {inode} on {mount}");
            let done = calls::punch_hole(file, offset, length);
            let made = self
                .model
                .punch(now, inode, &Punch { offset, length, size: 0, kill_suid_sgid: false })
                .map(drop);
            self.compare("punch", done, made);
            return;
        }
        let source = &self.open[mount][from];
        let to_offset = (offset * 7) % SIZE;
        self.doing =
            format!("copy {length} at {offset} of {} to {to_offset} of {inode}", source.inode);
        let done = calls::copy_range(&source.file, offset, file, to_offset, length as usize);
        // Linux compares the ranges before it looks at the size, of the file itself.
        let clone = CloneRange {
            from: source.inode,
            from_offset: offset,
            to: inode,
            to_offset,
            length,
            kill_suid_sgid: false,
        };
        let made = self.model.clone_range(now, &clone).map(|(_, len)| len as usize);
        self.compare("copy", done, made);
    }

    fn chmod(&mut self, mount: usize) {
        let (names, mode) =
            (self.place(), [0o644, 0o755, 0o4711, 0o2775][self.random.below(4) as usize]);
        self.doing = format!("chmod {names:?} {mode:o} on {mount}");
        let mode_set = fs::Permissions::from_mode(mode);
        let done = fs::set_permissions(self.path(mount, &names), mode_set).map_err(errno);
        let (now, set) = (self.now(), SetAttr { mode: Some(mode), ..SetAttr::default() });
        let made = self.find(&names).and_then(|attr| match attr.kind {
            FileKind::Symlink => Err(ErrorCode::NotFound),
            _ => self.model.setattr(now, attr.inode, &set).map(drop),
        });
        self.compare("chmod", done, made);
    }

    fn utimens(&mut self, mount: usize) {
        let Some(at) = self.pick(mount) else { return };
        let inode = self.open[mount][at].inode;
        let (secs, nanos) = (self.random.below(1 << 29), self.random.below(1_000_000_000) as u32);
        self.doing = format!("utimens of {inode} on {mount}");
        let since = Duration::new(SET_TIMES as u64 + secs, nanos);
        let time = SystemTime::UNIX_EPOCH + since;
        let done = self.open[mount][at].file.set_modified(time).map_err(errno);
        let mtime = Timestamp::new(SET_TIMES + secs as i64, nanos);
        let (now, set) = (self.now(), SetAttr { mtime: Some(mtime), ..SetAttr::default() });
        let made = self.model.setattr(now, inode, &set).map(drop);
        self.compare("utimens", done, made);
    }

    fn xattr(&mut self, mount: usize) {
        let names = self.place();
        let name = XATTRS[self.random.below(3) as usize];
        let (path, found, now) = (self.path(mount, &names), self.find(&names), self.now());
        // The kernel keeps user.* from what is neither a file nor a directory.
        let barred = name.starts_with(b"user.")
            && found.as_ref().is_ok_and(|attr| attr.kind == FileKind::Symlink);
        let may = |code: ErrorCode| match barred {
            true => Err(code),
            false => found.clone().map(|attr| attr.inode),
        };
        self.doing = format!("xattr {} of {names:?} on {mount}", String::from_utf8_lossy(name));
        match self.random.below(5) {
            0 | 1 => {
                let (value, how) = (self.bytes(), self.random.below(3));
                let flags = [0, libc::XATTR_CREATE, libc::XATTR_REPLACE][how as usize];
                let done = calls::set_xattr(&path, name, &value, flags);
                let (create, replace) = (how == 1, how == 2);
                let set = SetXattr { name: name.into(), value, create, replace, kill_sgid: false };
                let made = may(ErrorCode::Perm)
                    .and_then(|inode| self.model.setxattr(now, inode, &set).map(drop));
                self.compare("setxattr", done, made);
            }
            2 => {
                let got = calls::get_xattr(&path, name);
                let made = may(ErrorCode::NoData).and_then(|i| self.model.getxattr(i, name));
                self.compare("getxattr", got, made);
            }
            3 => {
                let done = calls::remove_xattr(&path, name);
                let made = may(ErrorCode::Perm)
                    .and_then(|inode| self.model.removexattr(now, inode, name).map(drop));
                self.compare("removexattr", done, made);
            }
            _ => {
                let got = calls::list_xattrs(&path);
                let made = found.and_then(|attr| self.model.listxattr(attr.inode));
                self.compare("listxattr", got, made);
            }
        }
    }

    fn read_link(&mut self, mount: usize, names: &[&'static str]) {
        self.doing = format!("readlink {names:?} on {mount}");
        let got = fs::read_link(self.path(mount, names)).map_err(errno);
        let got = got.map(|target| target.into_os_string().into_encoded_bytes());
        let expected = self.find(names).and_then(|attr| self.model.readlink(attr.inode));
        self.compare("readlink", got, expected);
    }
}
