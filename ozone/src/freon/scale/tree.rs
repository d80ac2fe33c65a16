//! Trees of many files, made in batches. Each file has 4 KiB of content, which it shares with a source
//! file: blocks are not what is measured here, extents are.

use std::sync::Arc;

use ozone_client::{BulkFile, Share};
use ozone_types::{FileName, InodeId};

use super::{is_ready, set_ready};
use crate::freon::content::{Content, mix};
use crate::freon::engine::{Work, Worker};
use crate::freon::target::{Bucket, Target};
use crate::freon::trouble::{Attempt, Trouble};

/// Bytes of each file.
pub const FILE_BYTES: u64 = 4096;
/// Bytes of the source: more than the client keeps in memory.
const SOURCE_BYTES: u64 = 128 << 20;
/// From one piece of the source that files share to the next: what a client reads around a random place.
const SPOT: u64 = 64 << 10;
const SOURCE_BUFFER: usize = 1 << 20;
/// Files of one directory that are made at a time, in a directory without end.
const SINGLE_BATCH: u64 = 512;

/// The file whose bytes all others share.
#[derive(Clone, Debug)]
pub struct Source {
    inode: InodeId,
    content: Content,
}

impl Source {
    /// Writes it, unless a run before has.
    pub fn prepare(bucket: &Bucket, prefix: &str, seed: u64) -> Attempt<Source> {
        let name = format!("{prefix}/source-{seed}");
        let content = Content::new(seed, &name);
        if !is_ready(bucket, &name, &name)? {
            let file = bucket.create(&name)?;
            let mut offset = 0;
            while offset < SOURCE_BYTES {
                file.write_at(offset, content.bytes(offset, SOURCE_BUFFER))?;
                offset += SOURCE_BUFFER as u64;
            }
            file.sync()?;
            file.close()?;
            set_ready(bucket, &name)?;
        }
        Ok(Source { inode: bucket.inode(&name)?, content })
    }

    /// Where in the source the bytes of a file are. All over it, for few files as for many, so that neither
    /// fits into the client's memory better; and at so few places that references to them, which metad
    /// keeps in the order of places, are added at the ends of as many runs.
    fn offset(number: u64) -> u64 {
        mix(number) % (SOURCE_BYTES / SPOT) * SPOT
    }

    fn share(&self, number: u64) -> Share {
        Share { from: self.inode, offset: Source::offset(number), length: FILE_BYTES }
    }

    /// The content of a file.
    pub fn bytes(&self, number: u64) -> bytes::Bytes {
        self.content.bytes(Source::offset(number), FILE_BYTES as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Directories of so many files, all in one.
    Wide { per_directory: u64 },
    /// One directory.
    Single,
}

#[derive(Clone, Debug)]
pub struct Tree {
    dir: String,
    shape: Shape,
    pub files: u64,
}

impl Tree {
    pub fn new(prefix: &str, shape: Shape, files: u64) -> Tree {
        let dir = match shape {
            Shape::Wide { per_directory } => format!("{prefix}/tree-{files}-{per_directory}"),
            Shape::Single => format!("{prefix}/directory-{files}"),
        };
        Tree { dir, shape, files }
    }

    /// What it is called in the report.
    pub fn kind(&self) -> &'static str {
        match self.shape {
            Shape::Wide { .. } => "tree",
            Shape::Single => "directory",
        }
    }

    /// The directory that a file is in.
    pub fn dir(&self, number: u64) -> String {
        match self.shape {
            Shape::Wide { per_directory } => format!("{}/d{:07}", self.dir, number / per_directory),
            Shape::Single => self.dir.clone(),
        }
    }

    pub fn name(&self, number: u64) -> String {
        format!("{}/f{number:09}", self.dir(number))
    }

    fn batch(&self) -> u64 {
        match self.shape {
            Shape::Wide { per_directory } => per_directory,
            Shape::Single => SINGLE_BATCH,
        }
    }

    /// How many steps its preparation has.
    pub fn batches(&self) -> u64 {
        self.files.div_ceil(self.batch())
    }

    /// Error: it is there, but not to its end.
    pub fn is_ready(&self, bucket: &Bucket) -> Attempt<bool> {
        is_ready(bucket, &self.dir, &self.dir)
    }

    pub fn set_ready(&self, bucket: &Bucket) -> Attempt<()> {
        set_ready(bucket, &self.dir)
    }

    /// Makes batch after batch.
    pub fn preparing(&self, bucket: &Arc<Bucket>, source: &Source) -> Attempt<Arc<dyn Work>> {
        bucket.make_dirs(&self.dir)?;
        let (tree, bucket, source) = (self.clone(), bucket.clone(), source.clone());
        Ok(Arc::new(move |worker: &mut Worker, batch: u64| {
            let first = batch * tree.batch();
            let dir = tree.dir(first);
            if tree.shape != Shape::Single {
                bucket.make_dir(&dir)?;
            }
            let numbers = first..tree.files.min(first + tree.batch());
            let made = numbers.end - numbers.start;
            let files = numbers.map(|number| {
                let name = format!("f{number:09}");
                let name = FileName::new(name.as_bytes()).map_err(|e| Trouble::cluster(&dir, e))?;
                Ok(BulkFile { name, share: Some(source.share(number)) })
            });
            let files = files.collect::<Attempt<Vec<_>>>()?;
            worker.timed("batch", |_| made, || bucket.create_many(&dir, &files))
        }))
    }
}

/// Makes `count` empty files in a new directory.
pub fn fill(bucket: &Bucket, dir: &str, count: u64) -> Attempt<()> {
    bucket.make_dir(dir)?;
    let name = |number: u64| FileName::new(format!("f{number:04}").as_bytes());
    let files = (0..count).map(|n| Ok(BulkFile { name: name(n)?, share: None }));
    let files = files.collect::<Result<Vec<_>, _>>();
    bucket.create_many(dir, &files.map_err(|error| Trouble::cluster(dir, error))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_batches_cover_all_files() {
        let tree = Tree::new("s", Shape::Wide { per_directory: 100 }, 250);
        assert_eq!(tree.name(0), "s/tree-250-100/d0000000/f000000000");
        assert_eq!(tree.name(249), "s/tree-250-100/d0000002/f000000249");
        assert_eq!(tree.batches(), 3);
        let single = Tree::new("s", Shape::Single, 1000);
        assert_eq!(single.name(999), "s/directory-1000/f000000999");
        assert_eq!(single.batches(), 2);
        for files in [100, 10_000] {
            let places: BTreeSet<_> = (0..files).map(Source::offset).collect();
            assert!(places.iter().all(|at| at % SPOT == 0 && at + FILE_BYTES <= SOURCE_BYTES));
            assert!(places.len() as u64 > files.min(SOURCE_BYTES / SPOT) * 9 / 10, "{files}");
        }
    }
}
