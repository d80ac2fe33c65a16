//! A directory, by system calls: of a mount, or of any other filesystem that is to be compared.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ozone_fuse_client::look::{Answer, LookError, Request, find};

use super::{Opened, Target};
use crate::Failure;
use crate::freon::stop::Stop;
use crate::freon::trouble::{Attempt, Trouble};

/// How often a mount is asked whether it has stored everything.
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    /// The mount that it is in; none for another filesystem.
    mount: Option<ozone_fuse_client::look::Target>,
    stop: Stop,
}

impl Mounted {
    /// A directory. Errors: it is none; it is not in a mount of ours, and `any` was not said.
    pub fn new(dir: &Path, any: bool, stop: &Stop) -> Result<Mounted, Failure> {
        let wrong = |why: String| Failure::new(2, format!("ozone freon: {why}"));
        let found = match find(dir) {
            Err(LookError::Inside { mountpoint, .. }) => find(&mountpoint),
            found => found,
        };
        let mount = match found {
            Ok(mount) => Some(mount),
            Err(LookError::NotMounted { .. }) if any => None,
            Err(err) => return Err(wrong(err.to_string())),
        };
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => {
                Ok(Mounted { dir: dir.to_owned(), mount, stop: stop.clone() })
            }
            Ok(_) => Err(wrong(format!("{} is not a directory", dir.display()))),
            Err(err) => Err(wrong(format!("{}: {err}", dir.display()))),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn open_file(&self, name: &str, options: &OpenOptions) -> Attempt<Box<dyn Opened>> {
        let path = self.at(name);
        match options.open(&path) {
            Ok(file) => Ok(Box::new(Open { file, path })),
            Err(err) => Err(failed(&path)(err)),
        }
    }

    /// Waits until the mount has nothing that is not committed.
    fn await_clean(&self, mount: &ozone_fuse_client::look::Target) -> Attempt<()> {
        let failed = |err: LookError| Trouble::system("asking the mount", io::Error::other(err));
        loop {
            match mount.ask(Request::Stats).and_then(|mut asking| asking.line()).map_err(failed)? {
                Answer::Stats(stats) if stats.client.dirty == 0 && stats.client.batches == 0 => {
                    return Ok(());
                }
                _ if self.stop.is_interrupted() => return Err(Trouble::Interrupted),
                _ => std::thread::sleep(POLL),
            }
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Trouble {
    let what = path.display().to_string();
    move |err| Trouble::system(what, err)
}

impl Target for Mounted {
    fn make_dirs(&self, dir: &str) -> Attempt<()> {
        let path = self.at(dir);
        fs::create_dir_all(&path).map_err(failed(&path))
    }

    fn make_dir(&self, dir: &str) -> Attempt<()> {
        let path = self.at(dir);
        fs::create_dir(&path).map_err(failed(&path))
    }

    fn create(&self, name: &str) -> Attempt<Box<dyn Opened>> {
        self.open_file(name, OpenOptions::new().read(true).write(true).create_new(true))
    }

    fn open(&self, name: &str, write: bool) -> Attempt<Box<dyn Opened>> {
        self.open_file(name, OpenOptions::new().read(true).write(write))
    }

    fn lookup(&self, name: &str) -> Attempt<u64> {
        let path = self.at(name);
        fs::symlink_metadata(&path).map(|meta| meta.len()).map_err(failed(&path))
    }

    fn enter(&self, dir: &str) -> Attempt<()> {
        self.lookup(dir).map(drop)
    }

    fn exists(&self, name: &str) -> Attempt<bool> {
        let path = self.at(name);
        path.try_exists().map_err(failed(&path))
    }

    fn rename(&self, from: &str, to: &str) -> Attempt<()> {
        let path = self.at(from);
        fs::rename(&path, self.at(to)).map_err(failed(&path))
    }

    fn unlink(&self, name: &str) -> Attempt<()> {
        let path = self.at(name);
        fs::remove_file(&path).map_err(failed(&path))
    }

    fn list(&self, dir: &str, max: u64) -> Attempt<u64> {
        let path = self.at(dir);
        let mut names = 0;
        for entry in fs::read_dir(&path).map_err(failed(&path))? {
            entry.map_err(failed(&path))?;
            names += 1;
            if names == max {
                break;
            }
        }
        Ok(names)
    }

    fn finish(&self) -> Attempt<()> {
        match &self.mount {
            Some(mount) => self.await_clean(mount),
            None => {
                let dir = File::open(&self.dir).map_err(failed(&self.dir))?;
                nix::unistd::syncfs(&dir).map_err(|errno| failed(&self.dir)(errno.into()))
            }
        }
    }
}

struct Open {
    file: File,
    path: PathBuf,
}

impl Opened for Open {
    fn size(&self) -> Attempt<u64> {
        self.file.metadata().map(|meta| meta.len()).map_err(failed(&self.path))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Attempt<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(failed(&self.path)(err)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, data: Bytes) -> Attempt<()> {
        self.file.write_all_at(&data, offset).map_err(failed(&self.path))
    }

    fn set_size(&self, size: u64) -> Attempt<()> {
        self.file.set_len(size).map_err(failed(&self.path))
    }

    fn sync(&self) -> Attempt<()> {
        self.file.sync_data().map_err(failed(&self.path))
    }

    fn close(self: Box<Self>) -> Attempt<()> {
        let Open { file, path } = *self;
        nix::unistd::close(file).map_err(|errno| failed(&path)(errno.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_does_what_a_target_should() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Stop::new();
        assert!(Mounted::new(dir.path(), false, &stop).unwrap_err().text.contains("not a mount"));
        assert!(Mounted::new(&dir.path().join("none"), true, &stop).is_err());
        let target = Mounted::new(dir.path(), true, &stop).unwrap();
        target.make_dirs("a/b").unwrap();
        target.make_dirs("a/b").unwrap();
        assert!(target.make_dir("a/b").is_err());
        let file = target.create("a/b/f").unwrap();
        file.write_at(0, Bytes::from_static(b"hello")).unwrap();
        file.set_size(4).unwrap();
        file.sync().unwrap();
        assert_eq!(file.size().unwrap(), 4);
        file.close().unwrap();
        assert!(target.create("a/b/f").is_err(), "it exists");
        let mut buffer = [0; 8];
        assert_eq!(target.open("a/b/f", false).unwrap().read_at(1, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"ell");
        assert_eq!(target.lookup("a/b/f").unwrap(), 4);
        target.rename("a/b/f", "a/g").unwrap();
        assert!(target.exists("a/g").unwrap() && !target.exists("a/b/f").unwrap());
        assert_eq!((target.list("a", 10).unwrap(), target.list("a", 1).unwrap()), (2, 1));
        target.unlink("a/g").unwrap();
        assert!(target.unlink("a/g").is_err());
        target.finish().unwrap();
    }
}
