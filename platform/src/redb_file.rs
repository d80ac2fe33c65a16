//! redb over a [`DiskFile`], so that its tables live on the simulated disk as well.

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;

use crate::disk::{Disk, DiskFile, OpenMode};

/// The storage of one redb database.
///
/// It takes no lock: the data directory's LOCK keeps other processes out.
#[derive(Debug)]
pub struct RedbFile {
    file: Arc<dyn DiskFile>,
}

impl RedbFile {
    pub fn new(file: Arc<dyn DiskFile>) -> RedbFile {
        RedbFile { file }
    }

    /// Opens the file, or creates it with an empty database, durably.
    ///
    /// redb refuses a file in which it was interrupted while it made the database. So that is done
    /// under another name, `path` with `.new` behind it: a file under its own name is whole.
    pub fn open(disk: &dyn Disk, path: &Path) -> io::Result<RedbFile> {
        if !disk.exists(path) {
            let mut new = path.as_os_str().to_owned();
            new.push(".new");
            create(disk, Path::new(&new), path)?;
        }
        Ok(RedbFile { file: disk.open(path, OpenMode::Write)? })
    }
}

fn create(disk: &dyn Disk, new: &Path, path: &Path) -> io::Result<()> {
    if disk.exists(new) {
        disk.remove(new)?;
    }
    let file = disk.open(new, OpenMode::CreateNew)?;
    let backend = RedbFile { file: Arc::clone(&file) };
    match redb::Database::builder().create_with_backend(backend) {
        Ok(database) => drop(database),
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(err))) => return Err(err),
        Err(err) => return Err(io::Error::other(err)),
    }
    file.sync_data()?;
    disk.rename(new, path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

impl StorageBackend for RedbFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase, TableDefinition};

    use super::*;
    use crate::std_disk;

    const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("t");

    #[test]
    fn a_database_lives_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables.redb");
        let open = || {
            let file = RedbFile::open(&*std_disk(), &path).unwrap();
            Database::builder().create_with_backend(file).unwrap()
        };
        let db = open();
        let txn = db.begin_write().unwrap();
        txn.open_table(TABLE).unwrap().insert(7, &b"seven"[..]).unwrap();
        txn.commit().unwrap();
        drop(db);
        let db = open();
        let table = db.begin_read().unwrap().open_table(TABLE).unwrap();
        assert_eq!(table.get(7).unwrap().unwrap().value(), b"seven");
    }
}
