//! A snapshot on the wire: a checkpoint's rows as chunks, with a count and a checksum at the end.

use std::io;

use ozone_proto::raft as wire;
use tokio::sync::mpsc;

use crate::codec::damaged;
use crate::store::{Base, Row, TableId, Tables};

/// Bytes of rows in one message, about.
const CHUNK_BYTES: usize = 1 << 20;

/// Counts and checks rows at either end.
struct Tally {
    rows: u64,
    digest: crc_fast::Digest,
}

impl Tally {
    fn new() -> Self {
        Tally { rows: 0, digest: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi) }
    }

    fn add(&mut self, table: TableId, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.digest.update(&[table]);
        for part in [key, value] {
            // Rows are far below 4 GiB: they came through messages of a few MiB.
            self.digest.update(&(part.len() as u32).to_be_bytes());
            self.digest.update(part);
        }
    }

    fn end(&self) -> wire::SnapshotEnd {
        // The algorithm has 32 bits.
        wire::SnapshotEnd { rows: self.rows, crc32c: self.digest.finalize() as u32 }
    }
}

/// Reads a checkpoint and hands its rows to `send` in chunks. Blocks.
pub fn send_rows(
    base: &Base,
    tables: &Tables,
    send: &mpsc::Sender<wire::SnapshotChunk>,
) -> io::Result<()> {
    let mut tally = Tally::new();
    for (slot, table) in tables.ids() {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        for row in base.rows(slot)? {
            let (key, value) = row?;
            tally.add(table, &key, &value);
            bytes += key.len() + value.len();
            chunk.push(wire::snapshot_rows::Row { key: key.into(), value: value.into() });
            if bytes >= CHUNK_BYTES {
                post(send, rows_message(table, std::mem::take(&mut chunk)))?;
                bytes = 0;
            }
        }
        if !chunk.is_empty() {
            post(send, rows_message(table, chunk))?;
        }
    }
    post(send, wire::snapshot_chunk::Part::End(tally.end()))
}

fn rows_message(table: TableId, rows: Vec<wire::snapshot_rows::Row>) -> wire::snapshot_chunk::Part {
    wire::snapshot_chunk::Part::Rows(wire::SnapshotRows { table: table.into(), rows })
}

fn post(
    send: &mpsc::Sender<wire::SnapshotChunk>,
    part: wire::snapshot_chunk::Part,
) -> io::Result<()> {
    send.blocking_send(wire::SnapshotChunk { part: Some(part) })
        .map_err(|_| io::Error::other("the receiver of the snapshot is gone"))
}

/// Checks the chunks that arrive after the header.
pub struct Receiver {
    chunks: mpsc::Receiver<wire::SnapshotChunk>,
    tally: Tally,
}

impl Receiver {
    pub fn new(chunks: mpsc::Receiver<wire::SnapshotChunk>) -> Self {
        Receiver { chunks, tally: Tally::new() }
    }

    /// The next rows; `None` when all have arrived and agree with what was sent. Blocks.
    pub fn next_rows(&mut self) -> io::Result<Option<(TableId, Vec<Row>)>> {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the snapshot ends too early");
        match self.chunks.blocking_recv().ok_or_else(cut)?.part {
            Some(wire::snapshot_chunk::Part::Rows(rows)) => {
                let table =
                    TableId::try_from(rows.table).map_err(|_| damaged("snapshot: table"))?;
                let mut out = Vec::with_capacity(rows.rows.len());
                for row in rows.rows {
                    self.tally.add(table, &row.key, &row.value);
                    out.push((row.key.into(), row.value.into()));
                }
                Ok(Some((table, out)))
            }
            Some(wire::snapshot_chunk::Part::End(end)) if end == self.tally.end() => Ok(None),
            Some(wire::snapshot_chunk::Part::End(_)) => Err(damaged("snapshot: its checksum")),
            Some(wire::snapshot_chunk::Part::Header(_)) | None => Err(damaged("snapshot: order")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ozone_testkit::simdisk::SimDisk;

    use super::*;
    use crate::store::{Mark, Read, Store, StoreOptions};

    const TABLES: &[(TableId, &str)] = &[(1, "a"), (9, "b")];

    fn store() -> Store {
        let options = StoreOptions { cache_bytes: 1 << 20, ..StoreOptions::default() };
        Store::open(SimDisk::new().disk(), Path::new("/s"), TABLES, options).unwrap()
    }

    /// A snapshot of 3,000 rows, 3 MiB, in two tables.
    fn chunks() -> Vec<wire::SnapshotChunk> {
        let source = store();
        let fill = |txn: &mut crate::Txn<'_>| {
            for i in 0..3000u32 {
                let table = if i < 2900 { 1 } else { 9 };
                txn.put(table, i.to_be_bytes().to_vec(), vec![i as u8; 1000]);
            }
            Ok(())
        };
        let mark = Mark { applied: Some((1, 1)), membership: Arc::default() };
        source.apply(Some(mark), fill).unwrap();
        let base = source.checkpoint().unwrap();
        let (send, mut receive) = mpsc::channel(100);
        send_rows(&base, source.tables(), &send).unwrap();
        drop(send);
        std::iter::from_fn(|| receive.blocking_recv()).collect()
    }

    fn receive(target: &Store, chunks: Vec<wire::SnapshotChunk>) -> io::Result<()> {
        let (send, receive) = mpsc::channel(chunks.len() + 1);
        for chunk in chunks {
            send.blocking_send(chunk).unwrap();
        }
        drop(send);
        let mut receiver = Receiver::new(receive);
        let mark = Mark { applied: Some((1, 1)), membership: Arc::default() };
        let incoming = target.receive(&mark, &mut || receiver.next_rows())?;
        target.install(&incoming)
    }

    #[test]
    fn a_snapshot_arrives_whole() {
        let chunks = chunks();
        assert!(chunks.len() > 3, "in several messages");
        let target = store();
        receive(&target, chunks).unwrap();
        let view = target.view();
        assert_eq!(view.prefix(1, b"").count(), 2900);
        assert_eq!(view.prefix(9, b"").count(), 100);
        assert_eq!(view.get(9, &2999u32.to_be_bytes()).unwrap(), Some(vec![2999u32 as u8; 1000]));
        assert_eq!(view.applied(), Some((1, 1)));
    }

    #[test]
    fn a_damaged_one_changes_nothing() {
        let good = chunks();
        let mut damaged: Vec<Vec<wire::SnapshotChunk>> = Vec::new();
        for at in 0..good.len() {
            damaged.push(good[..at].to_vec());
            let mut without = good.clone();
            without.remove(at);
            damaged.push(without);
            let mut twice = good.clone();
            twice.insert(at, good[at].clone());
            // A repeated end is never looked at.
            if at + 1 < good.len() {
                damaged.push(twice);
            }
            let mut changed = good.clone();
            match changed[at].part.as_mut().unwrap() {
                wire::snapshot_chunk::Part::Rows(rows) => {
                    rows.rows[0].value = vec![0; 999].into();
                }
                wire::snapshot_chunk::Part::End(end) => end.crc32c ^= 1,
                wire::snapshot_chunk::Part::Header(_) => unreachable!(),
            }
            damaged.push(changed);
            let mut foreign = good.clone();
            if let Some(wire::snapshot_chunk::Part::Rows(rows)) = foreign[at].part.as_mut() {
                rows.table = 300;
                damaged.push(foreign);
            }
            let mut empty = good.clone();
            empty[at].part = None;
            damaged.push(empty);
        }
        let target = store();
        target
            .update(|txn| {
                txn.put(1, b"old".to_vec(), b"row".to_vec());
                Ok(())
            })
            .unwrap();
        for chunks in damaged {
            assert!(receive(&target, chunks).is_err());
            assert_eq!(target.view().prefix(1, b"").count(), 1);
        }
    }
}
