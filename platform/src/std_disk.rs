//! The real disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::disk::{Disk, DiskFile, OpenMode, Space, at};

/// The filesystem of the operating system.
pub fn std_disk() -> Arc<dyn Disk> {
    Arc::new(StdDisk)
}

#[derive(Debug)]
struct StdDisk;

// The standard library opens with O_CLOEXEC.
#[derive(Debug)]
struct StdFile {
    file: File,
    path: PathBuf,
}

/// Slices per pwritev(2); Linux takes 1024 (UIO_MAXIOV).
const SLICES_MAX: usize = 1024;

impl Disk for StdDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read | OpenMode::ReadScattered => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let what = if mode == OpenMode::CreateNew { "create" } else { "open" };
        let file = options.open(path).map_err(|e| at(what, path, e))?;
        if mode == OpenMode::ReadScattered {
            // A hint; without it reading is as right.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        }
        Ok(Arc::new(StdFile { file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|e| at("rename", from, e))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|e| at("remove", path, e))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let read = || -> io::Result<Vec<OsString>> {
            let mut names =
                fs::read_dir(path)?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        };
        read().map_err(|e| at("list", path, e))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        if !path.is_dir() {
            self.create_dir_all(parent)?;
            // For its owner only: data, and the keys to it.
            match fs::DirBuilder::new().mode(0o700).create(path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                other => other.map_err(|e| at("create directory", path, e))?,
            }
        }
        // Also for a directory that was there: it may be from a process that was killed before
        // it came to this line. A parent that only others may read is not ours to sync.
        match self.sync_dir(parent) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path).map_err(|e| at("remove", path, e))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = File::open(path).map_err(|e| at("open", path, e))?;
        match dir.sync_all() {
            // Some filesystems have no fsync of directories; their names need none.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other.map_err(|e| at("sync", path, e)),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(path).map_err(|e| at("statvfs", path, e.into()))?;
        let unit = stat.fragment_size() as u64;
        Ok(Space {
            total: (stat.blocks() as u64).saturating_mul(unit),
            free: (stat.blocks_available() as u64).saturating_mul(unit),
        })
    }
}

impl StdFile {
    /// Writes the slices with as few calls as possible.
    fn pwritev(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut next = 0;
        // Bytes of bufs[next] that are already written.
        let mut skip = 0;
        while next < bufs.len() {
            if skip > 0 {
                self.file.write_all_at(&bufs[next][skip..], offset)?;
                offset += (bufs[next].len() - skip) as u64;
                (next, skip) = (next + 1, 0);
                continue;
            }
            let some = &bufs[next..bufs.len().min(next + SLICES_MAX)];
            let position = i64::try_from(offset).map_err(io::Error::other)?;
            let mut written = match nix::sys::uio::pwritev(&self.file, some, position) {
                Ok(0) if some.iter().any(|b| !b.is_empty()) => {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            offset += written as u64;
            for buf in some {
                if written < buf.len() {
                    break;
                }
                written -= buf.len();
                next += 1;
            }
            skip = written;
        }
        Ok(())
    }
}

impl DiskFile for StdFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(at("read", &self.path, e)),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset).map_err(|e| at("write", &self.path, e))
    }

    fn write_all_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.pwritev(bufs, offset).map_err(|e| at("write", &self.path, e))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|e| at("sync", &self.path, e))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(|e| at("set the length of", &self.path, e))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| at("stat", &self.path, e))?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::os_code;

    #[test]
    fn positioned_io_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let disk = std_disk();
        let sub = dir.path().join("a/b");
        disk.create_dir_all(&sub).unwrap();
        disk.create_dir_all(&sub).unwrap();
        let file = disk.open(&sub.join("f"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        let mut buf = [9; 10];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 8);
        assert_eq!(&buf[..8], b"\0\0\0hello");
        assert_eq!(
            file.read_exact_at(&mut buf, 0).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        file.sync_data().unwrap();
        disk.rename(&sub.join("f"), &sub.join("g")).unwrap();
        disk.sync_dir(&sub).unwrap();
        assert_eq!(disk.list(&sub).unwrap(), ["g"]);
        assert!(disk.exists(&sub.join("g")) && !disk.exists(&sub.join("f")));
        disk.remove(&sub.join("g")).unwrap();
        disk.remove_dir_all(&dir.path().join("a")).unwrap();
        assert!(disk.list(dir.path()).unwrap().is_empty());
        let space = disk.space(dir.path()).unwrap();
        assert!(space.total >= space.free && space.total > 0);
    }

    #[test]
    fn many_slices_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = std_disk().open(&dir.path().join("f"), OpenMode::Create).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| vec![i as u8; (i % 5) as usize]).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        file.write_all_vectored_at(&slices, 7).unwrap();
        let want = parts.concat();
        let mut got = vec![0; want.len()];
        file.read_exact_at(&mut got, 7).unwrap();
        assert!(got == want);
        assert_eq!(file.len().unwrap(), 7 + want.len() as u64);
    }

    #[test]
    fn errors_name_the_path_and_keep_the_errno() {
        let err = std_disk().open(Path::new("/nowhere/f"), OpenMode::Read).unwrap_err();
        assert!(err.to_string().contains("/nowhere/f"), "{err}");
        assert_eq!(err.kind(), io::ErrorKind::NotFound);
        assert_eq!(os_code(&err), Some(libc::ENOENT));
    }

    #[test]
    fn files_do_not_leak_to_children() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let flags = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC, "fd {}", file.as_raw_fd());
    }
}
