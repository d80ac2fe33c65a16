//! Blocks: allocation, writing, sealing, releasing, dropping; orphans' data.

use ozone_proto::metad::{ReleaseBlock, Setattr, Unlink, Write};

use super::*;
use crate::ops;
use crate::tables::{BLOCKS, Work};

fn write(inode: InodeId, size: u64, extents: Vec<common::Extent>) -> Op {
    Op::Write(Write { inode: inode.0, extents, size, ..Default::default() })
}

fn release(block: BlockId, length: u64) -> Op {
    Op::ReleaseBlock(ReleaseBlock { block: Some(block.into()), length })
}

fn work(bed: &Bed, work: Work) -> Vec<BlockId> {
    ops::work(&bed.view(), work, None, 10).unwrap().into_iter().map(|(block, _)| block).collect()
}

fn seal(block: BlockId, epoch: u32, length: u64) -> Kind {
    Kind::SealBlock(log::SealBlock { block: Some(block.into()), epoch, length })
}

fn told(block: BlockId) -> Kind {
    Kind::ReplicasSealed(log::ReplicasSealed { blocks: vec![block.into()] })
}

fn drop_block(block: BlockId) -> Kind {
    Kind::DropBlocks(log::DropBlocks { blocks: vec![block.into()] })
}

fn purge(bed: &Bed, inode: InodeId, max_rows: u32) -> log::PurgeProgress {
    let orphans = vec![log::OrphanKey { bucket: bed.bucket.0, inode: inode.0 }];
    match bed.run(Kind::PurgeOrphans(log::PurgeOrphans { orphans, max_rows })) {
        Reply::Purge(progress) => progress,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_lives_from_allocation_to_the_logged_deletion() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    bed.commit_one(write(file, 10, vec![extent(0, 10, block, 0)])).unwrap();
    assert_eq!(bed.commit_one(release(block, 9)), Err(ErrorCode::Invalid));
    bed.commit_one(release(block, 12)).unwrap();
    bed.commit_one(release(block, 12)).unwrap();
    assert_eq!(work(&bed, Work::Tell), [block]);
    bed.run(told(block));
    assert_eq!(work(&bed, Work::Drop), []);
    // Sealed at 12: what is below may still be named, what is beyond never.
    bed.commit_one(write(file, 12, vec![extent(10, 2, block, 10)])).unwrap();
    let beyond = write(file, 13, vec![extent(12, 1, block, 12)]);
    assert_eq!(bed.commit_one(beyond), Err(ErrorCode::BlockSealed));
    bed.run(drop_block(block));
    assert!(BLOCKS.has(&bed.view(), &block).unwrap());

    bed.commit_one(Op::Setattr(Setattr { inode: file.0, size: Some(0), ..Default::default() }))
        .unwrap();
    assert_eq!(work(&bed, Work::Drop), [block]);
    bed.assert_sound();
    bed.run(drop_block(block));
    assert_eq!(ops::deleted_blocks(&bed.view(), 10).unwrap(), [block]);
    let again = write(file, 1, vec![extent(0, 1, block, 0)]);
    assert_eq!(bed.commit_one(again), Err(ErrorCode::BlockNotFound));
    let logged = log::DeletionsLogged { blocks: vec![block.into()] };
    bed.run(Kind::DeletionsLogged(logged));
    assert_eq!(ops::counts(&bed.view()).unwrap().deletions_pending, 0);
    bed.assert_sound();
}

#[test]
fn a_seal_stands_and_cuts_no_committed_extent() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    bed.commit_one(write(file, 100, vec![extent(0, 100, block, 0)])).unwrap();
    assert!(matches!(bed.run(seal(block, 2, 90)), Reply::SealedLength(100)));
    assert!(matches!(bed.run(seal(block, 3, 500)), Reply::SealedLength(100)));
    let record = BLOCKS.need(&bed.view(), &block).unwrap();
    assert_eq!((record.epoch, record.writer), (2, bed.session.0));
    // Its writer has not released it: unreferenced, it still stays.
    bed.commit_one(Op::Setattr(Setattr { inode: file.0, size: Some(0), ..Default::default() }))
        .unwrap();
    bed.run(told(block));
    assert_eq!(work(&bed, Work::Drop), []);
    bed.commit_one(release(block, 700)).unwrap();
    assert_eq!(work(&bed, Work::Drop), [block]);
    let unknown = BlockId::new(ContainerId(9), 9);
    assert_eq!(bed.refused(seal(unknown, 2, 0)), ErrorCode::BlockNotFound);
    bed.assert_sound();
}

#[test]
fn only_the_writer_extends_a_block() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    bed.commit_one(write(file, 10, vec![extent(0, 10, block, 0)])).unwrap();
    let (writer, sequence) = (bed.session, bed.sequence);
    bed.session = bed.open_session();
    // The bytes that are there can be shared, others are not known to exist.
    bed.commit_one(write(file, 20, vec![extent(10, 10, block, 0)])).unwrap();
    let beyond = write(file, 21, vec![extent(20, 1, block, 10)]);
    assert_eq!(bed.commit_one(beyond), Err(ErrorCode::BlockSealed));
    assert_eq!(bed.commit_one(release(block, 10)), Err(ErrorCode::Invalid));
    (bed.session, bed.sequence) = (writer, sequence);
    bed.commit_one(write(file, 21, vec![extent(20, 1, block, 10)])).unwrap();
    let end = log::SessionEnd { session: writer.0, why: String::new() };
    bed.run(Kind::SessionEnd(end));
    assert_eq!(work(&bed, Work::Seal), [block]);
    bed.assert_sound();
}

#[test]
fn extents_must_make_sense() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    let max = i64::MAX as u64;
    for (size, bad, code) in [
        (10, extent(0, 0, block, 0), ErrorCode::Invalid),
        (10, extent(5, 6, block, 0), ErrorCode::Invalid),
        (max, extent(u64::MAX, 2, block, 0), ErrorCode::Invalid),
        (max, extent(0, 10, block, max - 5), ErrorCode::Invalid),
        (max + 1, extent(0, 10, block, 0), ErrorCode::TooBig),
        (10, common::Extent { length: 1, ..Default::default() }, ErrorCode::Protocol),
        (10, extent(0, 1, BlockId::new(ContainerId(1), 77), 0), ErrorCode::BlockNotFound),
    ] {
        assert_eq!(bed.commit_one(write(file, size, vec![bad])), Err(code), "{bad:?}");
    }
    assert_eq!(bed.commit_one(write(bed.root, 0, vec![])), Err(ErrorCode::IsDir));
    bed.commit_one(write(file, max, vec![extent(max - 1, 1, block, 0)])).unwrap();
    bed.assert_sound();
}

#[test]
fn a_stream_is_one_extent_however_it_was_committed() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    for at in 0..10 {
        bed.commit_one(write(file, at * 7 + 7, vec![extent(at * 7, 7, block, at * 7)])).unwrap();
    }
    let reply = ops::extents(&bed.view(), bed.bucket, file, 30, 0).unwrap();
    assert_eq!(reply.extents, [extent(0, 70, block, 0)]);
    assert!(reply.end);
    assert_eq!(reply.locations.len(), 1);
    bed.assert_sound();
}

#[test]
fn purging_is_done_in_steps() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    // Backwards in the block, so that nothing merges.
    let extents = (0..10).map(|at| extent(at * 5, 5, block, (9 - at) * 5)).collect();
    bed.commit_one(write(file, 50, extents)).unwrap();
    assert_eq!(purge(&bed, file, 100), log::PurgeProgress::default());
    bed.commit_one(Op::Unlink(Unlink { parent: bed.root.0, name: b"f".to_vec() })).unwrap();
    let mut steps = 1;
    while purge(&bed, file, 3).more {
        bed.assert_sound();
        steps += 1;
    }
    assert_eq!(steps, 4);
    bed.assert_sound();
    assert_eq!(purge(&bed, file, 3), log::PurgeProgress::default());
    let usage = tables::BUCKET_USAGE.need(&bed.view(), &bed.bucket).unwrap();
    assert_eq!(usage, log::BucketUsage { inodes: 1, ..Default::default() });
    assert_eq!(BLOCKS.need(&bed.view(), &block).unwrap().live, 0);
}

#[test]
fn blocks_come_only_into_open_containers() {
    let mut bed = Bed::new();
    bed.allocate();
    let allocate = |session, container, local| {
        Kind::AllocateBlocks(log::AllocateBlocks {
            session,
            blocks: vec![BlockId::new(ContainerId(container), local).into()],
            replication: Some(Replication::THREE.into()),
            containers: Vec::new(),
        })
    };
    let session = bed.session.0;
    assert_eq!(bed.refused(allocate(session, 1, 1)), ErrorCode::Exists);
    assert_eq!(bed.refused(allocate(session, 2, 1)), ErrorCode::ContainerClosed);
    assert_eq!(bed.refused(allocate(999, 1, 2)), ErrorCode::SessionEnded);
    let containers =
        vec![log::ContainerRecord { container: 1, closing: true, ..Default::default() }];
    let update = log::UpdateTopology { containers, containers_gone: vec![1], ..Default::default() };
    bed.run(Kind::UpdateTopology(update));
    assert_eq!(bed.refused(allocate(session, 1, 2)), ErrorCode::ContainerClosed);
    assert_eq!(ops::open_blocks_in(&bed.view(), ContainerId(1)).unwrap().len(), 1);
    bed.assert_sound();
}

#[test]
fn locations_name_the_servers_that_are_known() {
    let mut bed = Bed::new();
    let block = bed.allocate();
    let ids: Vec<Vec<u8>> = (1..=3u8).map(|n| vec![n; 16]).collect();
    let blockds = ids[..2]
        .iter()
        .map(|id| log::BlockdRecord { blockd: id.clone(), address: "h:1".into(), alive: true })
        .collect();
    let containers =
        vec![log::ContainerRecord { container: 1, blockds: ids.clone(), ..Default::default() }];
    let update = log::UpdateTopology { containers, blockds, ..Default::default() };
    bed.run(Kind::UpdateTopology(update));
    let unknown = BlockId::new(ContainerId(5), 5);
    let found = ops::locate(&bed.view(), &[unknown, block]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].epoch, found[0].replicas.len()), (1, 2));
    let bad = log::BlockdRecord { blockd: vec![1], ..Default::default() };
    let update = log::UpdateTopology { blockds: vec![bad], ..Default::default() };
    assert_eq!(bed.refused(Kind::UpdateTopology(update)), ErrorCode::Protocol);
}
