//! Changes of data: write, punch, clone.

use ozone_proto::metad::{Clone, Punch, Write};
use ozone_testkit::model::{self, CloneRange, ModelResult};
use ozone_types::{Attr as TypedAttr, InodeId, Timestamp};

use super::super::*;
use super::{Pair, Pick};

impl Pair {
    pub(super) fn write(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        runs: &[(u64, u64)],
        hole: u64,
        [kill, scatter, append]: [bool; 3],
        credit: u64,
    ) -> (Op, ModelResult<(TypedAttr, u64)>) {
        let mut write = model::Write { kill_suid_sgid: kill, append, ..Default::default() };
        let mut extents = Vec::new();
        for &(offset, length) in runs {
            self.fill = self.fill.wrapping_add(1);
            let bytes: Vec<u8> = (0..length).map(|n| (n as u8) ^ self.fill).collect();
            let block = self.blocks.get_mut(&self.block).unwrap();
            if scatter {
                block.extend([0xee; 3]);
            }
            extents.push(extent(offset, length, self.block, block.len() as u64));
            block.extend(&bytes);
            write.size = write.size.max(offset + length + hole);
            write.runs.push((offset, bytes));
        }
        if kill {
            write.mtime = Some(Timestamp::new(now.secs - 10, 3));
        }
        let op = Op::Write(Write {
            inode: inode.0,
            extents,
            size: write.size,
            mtime: write.mtime.map(Into::into),
            kill_suid_sgid: kill,
            append,
            credit,
        });
        (op, self.model.write(now, inode, &write))
    }

    pub(super) fn punch(
        &mut self,
        now: Timestamp,
        inode: Pick,
        (offset, length): (u64, u64),
        size: u64,
        kill_suid_sgid: bool,
    ) -> (Op, ModelResult<TypedAttr>) {
        let inode = self.pick(inode);
        let op = Punch { inode: inode.0, offset, length, size, kill_suid_sgid };
        let punch = model::Punch { offset, length, size, kill_suid_sgid };
        (Op::Punch(op), self.model.punch(now, inode, &punch))
    }

    pub(super) fn clone_range(
        &mut self,
        now: Timestamp,
        (from, from_offset): (Pick, u64),
        (to, to_offset): (Pick, u64),
        length: u64,
        kill_suid_sgid: bool,
    ) -> (Op, ModelResult<(TypedAttr, u64)>) {
        let (from, to) = (self.pick(from), self.pick(to));
        let op = Clone { from: from.0, from_offset, to: to.0, to_offset, length, kill_suid_sgid };
        let clone = CloneRange { from, from_offset, to, to_offset, length, kill_suid_sgid };
        let result = self.model.clone_range(now, &clone);
        if let Ok((_, done)) = result {
            let outcomes =
                [(from == to, "of one file"), (done < length, "shortened"), (done == 0, "none")];
            for (_, outcome) in outcomes.into_iter().filter(|(seen, _)| *seen) {
                *self.seen.entry(("clone", outcome)).or_default() += 1;
            }
        }
        (Op::Clone(op), result)
    }
}
