//! fallocate, SEEK_DATA and SEEK_HOLE, copy_file_range.

use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{ErrorCode, FsResult};

use super::*;
use crate::api::{Allocate, Seek, SetAttr};
use crate::file::seek::GRAIN;

const ZERO: Allocate = Allocate::Zero { keep_size: false };

async fn allocate(client: &Client, file: &OpenFile, from: u64, to: u64, how: Allocate) {
    client.fallocate(file, from..to, how, false).await.unwrap();
}

async fn size(client: &Client, file: &OpenFile) -> u64 {
    client.getattr(file.inode()).await.unwrap().size
}

fn code<T: std::fmt::Debug>(result: FsResult<T>) -> ErrorCode {
    result.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn a_hole_lies_between_the_data_before_and_behind_it() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"0123456789").await;
    let commits = cluster.metad.commits();
    allocate(&client, &file, 2, 8, Allocate::Punch).await;
    assert_eq!(cluster.metad.commits(), commits + 1, "data and hole are one batch");
    assert_eq!(cluster.metad.extents_of(file.inode().0), 2);
    assert_eq!(read(&client, &file, 0, 20).await, b"01\0\0\0\0\0\089");
    write(&client, &file, 4, b"xy").await;
    assert_eq!(read(&client, &file, 0, 20).await, b"01\0\0xy\0\089");
    allocate(&client, &file, 5, 9, Allocate::Zero { keep_size: true }).await;
    let other = cluster.client().await;
    let seen = open(&other, file.inode(), false).await;
    for (client, file) in [(&client, &file), (&other, &seen)] {
        assert_eq!(read(client, file, 0, 20).await, b"01\0\0x\0\0\0\09");
    }
    // Without leases.
    allocate(&client, &file, 0, 1, Allocate::Punch).await;
    assert_eq!(read(&other, &seen, 0, 3).await, b"\x001\0");
    assert_eq!(read(&client, &file, 0, 3).await, b"\x001\0");
}

#[tokio::test(start_paused = true)]
async fn sizes_grow_and_never_shrink() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"0123").await;
    allocate(&client, &file, 0, 100, Allocate::Punch).await;
    assert_eq!(size(&client, &file).await, 4);
    allocate(&client, &file, 2, 50, Allocate::Reserve).await;
    allocate(&client, &file, 2, 60, Allocate::Zero { keep_size: true }).await;
    assert_eq!((size(&client, &file).await, read(&client, &file, 0, 9).await.len()), (4, 4));
    allocate(&client, &file, 2, 10, Allocate::Extend).await;
    assert_eq!(read(&client, &file, 0, 100).await, [0; 10]);
    write(&client, &file, 0, b"0123").await;
    allocate(&client, &file, 0, 3, Allocate::Extend).await;
    assert_eq!(read(&client, &file, 0, 100).await, b"0123\0\0\0\0\0\0");
    allocate(&client, &file, 3, 12, ZERO).await;
    assert_eq!(read(&client, &file, 0, 100).await, b"012\0\0\0\0\0\0\0\0\0");
    assert_eq!(client.append(&file, Bytes::from_static(b"end"), false).await.unwrap(), 12);
    assert_eq!(size(&client, &file).await, 15);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_allocated_is_refused() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    cluster.metad.set_free(1000);
    let allocate = |range, how| client.fallocate(&file, range, how, false);
    for how in [Allocate::Extend, Allocate::Reserve] {
        assert_eq!(code(allocate(10..1011, how).await), ErrorCode::NoSpace);
        allocate(10..1010, how).await.unwrap();
    }
    assert_eq!(size(&client, &file).await, 1010);
    for how in [Allocate::Punch, ZERO, Allocate::Extend, Allocate::Reserve] {
        let beyond = FILE_SIZE_MAX..FILE_SIZE_MAX + 1;
        assert_eq!(code(allocate(beyond, how).await), ErrorCode::TooBig);
        assert_eq!(code(allocate(5..5, how).await), ErrorCode::Invalid);
    }
    allocate(0..5000, ZERO).await.unwrap();
    allocate(1..FILE_SIZE_MAX, Allocate::Punch).await.unwrap();
    let reader = open(&client, file.inode(), false).await;
    let refused = client.fallocate(&reader, 0..1, Allocate::Punch, false).await;
    assert_eq!(code(refused), ErrorCode::BadHandle);
}

#[tokio::test(start_paused = true)]
async fn holes_are_found_in_what_is_dirty_and_under_a_lease_nobody_is_asked() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, GRAIN, &[1; 100]).await;
    write(&client, &file, 3 * GRAIN + 100, &[1; 100]).await;
    let end = 3 * GRAIN + 200;
    assert_eq!(client.seek(&file, 0, Seek::Data).await, Ok(GRAIN));
    assert_eq!(client.core().budget.dirty(), 0, "what is dirty is stored first");
    cluster.metad.set_down(true);
    for (offset, data, hole) in [
        (0, GRAIN, 0),
        (GRAIN - 1, GRAIN, GRAIN - 1),
        (GRAIN + 150, GRAIN + 150, 2 * GRAIN),
        (2 * GRAIN + 1, 3 * GRAIN, 2 * GRAIN + 1),
        (end - 1, end - 1, end),
    ] {
        assert_eq!(client.seek(&file, offset, Seek::Data).await, Ok(data));
        assert_eq!(client.seek(&file, offset, Seek::Hole).await, Ok(hole));
    }
    for what in [Seek::Data, Seek::Hole] {
        assert_eq!(code(client.seek(&file, end, what).await), ErrorCode::NoSuchOffset);
    }
    cluster.metad.set_down(false);
    allocate(&client, &file, 3 * GRAIN, end + 1, ZERO).await;
    assert_eq!(code(client.seek(&file, 2 * GRAIN, Seek::Data).await), ErrorCode::NoSuchOffset);
    assert_eq!(client.seek(&file, end, Seek::Hole).await, Ok(end));
}

#[tokio::test(start_paused = true)]
async fn a_map_of_many_pages_is_searched() {
    const PIECES: u64 = 2500;
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "f").await;
    // No extent continues the one before it in its block.
    for odd in [1, 0] {
        for n in (odd..PIECES).step_by(2) {
            write(&a, &file, GRAIN + n * 10, &[1; 10]).await;
        }
        a.fsync(&file).await.unwrap();
    }
    assert_eq!(cluster.metad.extents_of(file.inode().0), PIECES as usize);
    let end = (GRAIN + PIECES * 10).next_multiple_of(GRAIN);
    allocate(&a, &file, 0, end + 10, Allocate::Extend).await;
    let other = open(&b, file.inode(), false).await;
    for (offset, data, hole) in [(0, GRAIN, 0), (GRAIN, GRAIN, end), (end - 1, end - 1, end)] {
        assert_eq!(b.seek(&other, offset, Seek::Data).await, Ok(data));
        assert_eq!(b.seek(&other, offset, Seek::Hole).await, Ok(hole));
    }
    assert_eq!(code(b.seek(&other, end, Seek::Data).await), ErrorCode::NoSuchOffset);
    assert_eq!(b.seek(&other, end, Seek::Hole).await, Ok(end));
}

#[tokio::test(start_paused = true)]
async fn a_copy_shares_what_is_stored() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (from, to) = (create(&client, "from").await, create(&client, "to").await);
    // More extents than one entry takes, with holes between, all of it still dirty.
    for n in 0..10u64 {
        write(&client, &from, n * 1000, &pattern(700, n)).await;
    }
    write(&client, &to, 0, &[7; 3000]).await;
    let source = read(&client, &from, 0, 10_000).await;
    let copied = client.copy_range(&from, 100, &to, 1000, 50_000, true).await;
    assert_eq!(copied.unwrap(), 9600, "up to the end of the source");
    assert_eq!(client.core().budget.dirty(), 0);
    assert_eq!(client.seek(&to, 1500, Seek::Hole).await, Ok(10_600), "no hole has a whole block");
    let reads = cluster.blockds.ids().iter().map(|id| cluster.blockds.with(*id, |s| s.reads)).sum();
    assert_eq!(0usize, reads, "no byte was moved");
    let expected = [&[7; 1000], &source[100..]].concat();
    assert_eq!(read(&client, &to, 0, 20_000).await, expected);
    assert_eq!(client.append(&to, Bytes::from_static(b"end"), false).await.unwrap(), 10_600);
    // The two go their own ways.
    write(&client, &from, 100, b"changed").await;
    client.fsync(&from).await.unwrap();
    let other = cluster.client().await;
    let seen = open(&other, to.inode(), false).await;
    assert_eq!(read(&other, &seen, 0, 10_600).await, expected);
    assert_eq!(client.copy_range(&from, 9700, &to, 0, 10, true).await.unwrap(), 0);
    assert_eq!(client.copy_range(&from, 0, &to, 20_000, 0, true).await.unwrap(), 0);
    assert_eq!(size(&client, &to).await, 10_603);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_copied_within_itself_but_not_onto_itself() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"0123456789").await;
    // What is copied does not become part of the source.
    assert_eq!(client.copy_range(&file, 4, &file, 10, 1000, true).await.unwrap(), 6);
    assert_eq!(read(&client, &file, 0, 100).await, b"0123456789456789");
    for (from, to, len) in [(0, 0, 1), (0, 5, 6), (5, 0, 6), (10, 12, 1000)] {
        let refused = client.copy_range(&file, from, &file, to, len, true).await;
        assert_eq!(code(refused), ErrorCode::Invalid, "{from} {to} {len}");
    }
    assert_eq!(client.copy_range(&file, 5, &file, 0, 5, true).await.unwrap(), 5);
    assert_eq!(read(&client, &file, 0, 100).await, b"5678956789456789");
}

#[tokio::test(start_paused = true)]
async fn a_copy_takes_setuid_and_needs_the_right_handles() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (from, to) = (create(&client, "from").await, create(&client, "to").await);
    write(&client, &from, 0, b"data").await;
    let set = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    client.setattr(to.inode(), set).await.unwrap();
    client.copy_range(&from, 0, &to, 0, 4, true).await.unwrap();
    assert_eq!(client.getattr(to.inode()).await.unwrap().mode, 0o755);
    let set = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    client.setattr(to.inode(), set).await.unwrap();
    client.copy_range(&from, 0, &to, 0, 4, false).await.unwrap();
    assert_eq!(client.getattr(to.inode()).await.unwrap().mode, 0o4755, "a privileged one keeps it");
    let reader = open(&client, to.inode(), false).await;
    let refused = client.copy_range(&from, 0, &reader, 0, 4, true).await;
    assert_eq!(code(refused), ErrorCode::BadHandle);
    let refused = client.copy_range(&from, 0, &to, FILE_SIZE_MAX - 3, 4, true).await;
    assert_eq!(code(refused), ErrorCode::TooBig);
}

#[tokio::test(start_paused = true)]
async fn data_that_is_lost_on_the_way_fails_the_copy_and_the_search() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let (from, to) = (create(&client, "from").await, create(&client, "to").await);
    write(&client, &from, 0, b"kept").await;
    client.fsync(&from).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.core().pool.drain();
    cluster.metad.refuse_allocation(Some(ErrorCode::NoSpace));
    write(&client, &from, 4, b"lost").await;
    let refused = client.copy_range(&from, 0, &to, 0, 8, true).await;
    assert_eq!(code(refused), ErrorCode::NoSpace);
    write(&client, &from, 4, b"lost").await;
    assert_eq!(code(client.seek(&from, 0, Seek::Hole).await), ErrorCode::NoSpace);
    assert_eq!(client.fsync(&from).await.unwrap_err().errno(), 28, "fsync says so as well");
    assert_eq!(client.seek(&from, 0, Seek::Hole).await, Ok(4));
    assert_eq!(client.copy_range(&from, 0, &to, 0, 8, true).await.unwrap(), 4);
    assert_eq!(read(&client, &to, 0, 10).await, b"kept");
}
