//! What becomes of a request: refused, answered as it is, or a change. Nothing is written here.

use bytes::Bytes;
use ozone_types::{BlockId, ContainerId, ErrorCode, FsError, FsResult};

use super::cut::cut_run;
use super::queue::{Op, Request};
use super::read;
use super::record::{Change, Run};
use super::row::{Admission, Row, State, admit_append, admit_promise, admit_seal};
use super::tables::Block;
use super::writer::{Entry, Writer};

impl Writer {
    /// The block's row after everything queued; loads the block into memory.
    fn load(&self, id: BlockId) -> FsResult<Option<Row>> {
        if let Some(block) = self.shared.tables.lock().blocks.get(&id) {
            return Ok(block.queued);
        }
        let row = self.shared.index.block(id).map_err(|err| {
            self.shared.fail(format!("cannot look up block {id}: {err}"));
            FsError::with(ErrorCode::Io, err.to_string())
        })?;
        self.shared.tables.lock().blocks.entry(id).or_insert_with(|| Block::indexed(row));
        Ok(row)
    }

    fn is_closed(&self, container: ContainerId) -> bool {
        self.shared.tables.lock().containers.get(&container).is_some_and(|c| c.closed)
    }

    /// Whether deciding about a request takes bytes that are on their way to the disk: an append
    /// that may be a repetition, a seal that cuts.
    pub(super) fn needs_quiet(&self, request: &Request) -> bool {
        match request {
            Request::Append { block, epoch, offset, data, .. } => {
                let Ok(row) = self.load(*block) else { return false };
                let closed = self.is_closed(block.container);
                let admission = admit_append(row, closed, *epoch, *offset, data.len() as u64);
                matches!(admission, Ok(Admission::Compare))
            }
            Request::Seal { block, epoch, length } => {
                let Ok(row) = self.load(*block) else { return false };
                let cut = admit_seal(row, *epoch, *length);
                matches!((row, cut), (Some(row), Ok(Some(at))) if at < row.length)
            }
            _ => false,
        }
    }

    pub(super) fn admit(&self, op: Op) -> Entry {
        let block = match &op.request {
            Request::Append { block, .. }
            | Request::Promise { block, .. }
            | Request::Seal { block, .. }
            | Request::Delete { block } => Some(*block),
            Request::Close { .. } | Request::Refuse { .. } => None,
        };
        let mut entry = Entry {
            block,
            change: Ok(None),
            payload: None,
            before: None,
            reply: op.reply,
            permit: op.permit,
        };
        entry.change = self.decide(op.request, &mut entry.before, &mut entry.payload);
        if let (Some(block), Ok(Some(change))) = (entry.block, &entry.change) {
            match Row::after(entry.before, change) {
                Ok(row) => self.set_queued(block, entry.before, Some(row)),
                Err(contradiction) => {
                    // A fault of this program; nothing has been written yet.
                    entry.change = Err(FsError::with(ErrorCode::Io, contradiction.to_string()));
                }
            }
        }
        entry
    }

    pub(super) fn set_queued(&self, id: BlockId, before: Option<Row>, row: Option<Row>) {
        let mut tables = self.shared.tables.lock();
        // A checkpoint may have dropped the block since it was loaded: then nothing was queued.
        tables.blocks.entry(id).or_insert_with(|| Block::indexed(before)).queued = row;
    }

    fn decide(
        &self,
        request: Request,
        before: &mut Option<Row>,
        payload: &mut Option<Bytes>,
    ) -> FsResult<Option<Change>> {
        if let Request::Refuse { error } = request {
            return Err(error);
        }
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        match request {
            Request::Append { block, epoch, offset, data, crcs } => {
                *before = self.load(block)?;
                let closed = self.is_closed(block.container);
                match admit_append(*before, closed, epoch, offset, data.len() as u64)? {
                    Admission::Compare => self.compare(block, offset, &data).map(|()| None),
                    Admission::Append => {
                        self.take_space(data.len() as u64)?;
                        let length = data.len() as u32;
                        let data = match data.len() <= self.shared.options.small_append {
                            true => Some(data),
                            false => {
                                *payload = Some(data);
                                None
                            }
                        };
                        let run = Run { offset, length, crcs, data };
                        Ok(Some(Change::Append { block, epoch, run }))
                    }
                }
            }
            Request::Promise { block, epoch } => {
                *before = self.load(block)?;
                let news = admit_promise(*before, epoch)?;
                Ok(news.then_some(Change::Promise { block, epoch }))
            }
            Request::Seal { block, epoch, length } => {
                *before = self.load(block)?;
                self.decide_seal(block, *before, epoch, length)
            }
            Request::Delete { block } => {
                *before = self.load(block)?;
                let gone = match *before {
                    None => self.is_closed(block.container),
                    Some(row) => row.state == State::Deleted,
                };
                Ok((!gone).then_some(Change::Delete { block }))
            }
            Request::Close { container } => {
                let closed = self.is_closed(container);
                Ok((!closed).then_some(Change::Close { container }))
            }
            Request::Refuse { error } => Err(error),
        }
    }

    /// The free space is known to about a second; before anything is refused it is looked at.
    fn take_space(&self, bytes: u64) -> FsResult<()> {
        if self.shared.space.take(bytes) {
            return Ok(());
        }
        self.shared.refresh_space();
        match self.shared.space.take(bytes) {
            true => Ok(()),
            false => Err(FsError::with(ErrorCode::NoSpace, "the disk is full")),
        }
    }

    fn decide_seal(
        &self,
        block: BlockId,
        row: Option<Row>,
        epoch: u32,
        length: u64,
    ) -> FsResult<Option<Change>> {
        let Some(at) = admit_seal(row, epoch, length)? else { return Ok(None) };
        let end = row.map_or(0, |row| row.length);
        if length > end {
            let why = format!("{end} bytes are here, the block is sealed at {length}");
            self.shared.report_bad(block, why);
        }
        let (length, cut) = if at < end { cut_run(&self.shared, block, at)? } else { (at, None) };
        Ok(Some(Change::Seal { block, epoch, length, cut }))
    }

    /// A repetition must bring the bytes that are there.
    fn compare(&self, block: BlockId, offset: u64, data: &Bytes) -> FsResult<()> {
        let mut at = 0;
        while at < data.len() {
            let there = read::read(&self.shared, block, offset + at as u64, data.len() - at)?;
            let skip = (offset + at as u64 - there.offset) as usize;
            let have = there.data.get(skip..).unwrap_or_default();
            let n = have.len().min(data.len() - at);
            if n == 0 || have[..n] != data[at..at + n] {
                let why = "other bytes are at this offset already";
                return Err(FsError::with(ErrorCode::OutOfOrder, why));
            }
            at += n;
        }
        Ok(())
    }
}
