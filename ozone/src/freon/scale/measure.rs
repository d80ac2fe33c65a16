//! The operations that are measured, on files chosen at random.

use std::sync::Arc;

use super::extents::{PIECE, Scattered};
use super::tree::{FILE_BYTES, Source, Tree};
use crate::freon::engine::{Work, Worker};
use crate::freon::target::{Opened, Target};
use crate::freon::trouble::{Attempt, Trouble};

/// Names of one page of a listing.
const PAGE: u64 = 1000;

/// All operations on files and names of a tree.
pub fn tree(tree: Tree, source: Source, target: Arc<dyn Target>) -> Arc<dyn Work> {
    Arc::new(move |worker: &mut Worker, number: u64| {
        names(worker, &tree, &*target, number)?;
        data(worker, &tree, &source, &*target)
    })
}

fn any(worker: &mut Worker, tree: &Tree, target: &dyn Target) -> Attempt<(u64, String)> {
    let number = worker.random.below(tree.files);
    target.enter(&tree.dir(number))?;
    Ok((number, tree.name(number)))
}

fn names(worker: &mut Worker, tree: &Tree, target: &dyn Target, number: u64) -> Attempt<()> {
    let (_, name) = any(worker, tree, target)?;
    worker.timed("lookup", |_| 0, || target.lookup(&name))?;

    let (at, _) = any(worker, tree, target)?;
    let dir = tree.dir(at);
    let listed = worker.timed("readdir page", |_| 0, || target.list(&dir, PAGE))?;
    if listed == 0 {
        return Err(Trouble::system(dir, std::io::Error::other("no names in it")));
    }

    let (old, new) = (format!("{dir}/new-{number}"), format!("{dir}/renamed-{number}"));
    worker.timed("create", |()| 0, || target.create(&old)?.close())?;
    worker.timed("rename", |()| 0, || target.rename(&old, &new))?;
    worker.timed("unlink", |()| 0, || target.unlink(&new))
}

fn data(worker: &mut Worker, tree: &Tree, source: &Source, target: &dyn Target) -> Attempt<()> {
    let (number, name) = any(worker, tree, target)?;
    let file = worker.timed("open", |_| 0, || target.open(&name, false))?;
    worker.timed("stat", |_| 0, || file.size())?;
    read(worker, &name, &*file, 0, &source.bytes(number))?;
    file.close()?;

    let (number, name) = any(worker, tree, target)?;
    let file = target.open(&name, true)?;
    // The same bytes: whoever reads them later finds them right.
    write(worker, &*file, 0, source.bytes(number))?;
    file.close()
}

/// Opening, reading and writing a file of many extents.
pub fn extents(scattered: Scattered, target: Arc<dyn Target>) -> Arc<dyn Work> {
    Arc::new(move |worker: &mut Worker, _: u64| {
        let name = &scattered.name;
        let file = worker.timed("open", |_| 0, || target.open(name, true))?;
        worker.timed("stat", |_| 0, || file.size())?;
        let piece = worker.random.below(scattered.extents);
        read(worker, name, &*file, Scattered::offset(piece), &scattered.bytes(piece))?;
        let piece = worker.random.below(scattered.extents);
        write(worker, &*file, Scattered::offset(piece), scattered.bytes(piece))?;
        worker.timed("close", |()| 0, || file.close())
    })
}

fn read(
    worker: &mut Worker,
    name: &str,
    file: &dyn Opened,
    offset: u64,
    wanted: &[u8],
) -> Attempt<()> {
    let mut buffer = vec![0; wanted.len()];
    let read = worker.timed("read 4 KiB", |_| FILE_BYTES, || file.read_at(offset, &mut buffer))?;
    match read == wanted.len() && buffer == wanted {
        true => Ok(()),
        false => Err(Trouble::system(
            format!("{name}: {read} bytes from {offset} on"),
            std::io::Error::other("not what was written"),
        )),
    }
}

fn write(worker: &mut Worker, file: &dyn Opened, offset: u64, data: bytes::Bytes) -> Attempt<()> {
    worker.timed(
        "write 4 KiB, fsync",
        |()| PIECE,
        || {
            file.write_at(offset, data)?;
            file.sync()
        },
    )
}
