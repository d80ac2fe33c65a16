use std::io;
use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use ozone_journal::{Journal, Options, Position, RECORD_MAX};
use ozone_platform::{OpenMode, std_disk};
use ozone_testkit::simdisk::SimDisk;

use crate::{DIR, Records, open, open_with, small};

/// Appends payloads of these lengths, one by one.
fn fill(journal: &Journal, lengths: &[usize]) -> Records {
    let payload = |(i, &len): (usize, &usize)| vec![i as u8 + 1; len];
    let all = lengths.iter().enumerate().map(payload);
    all.map(|p| (journal.append_sync(p.clone()).unwrap(), p)).collect()
}

#[test]
fn records_come_back_in_order_and_by_position() {
    let sim = SimDisk::new();
    let (journal, records) = open(sim.disk()).unwrap();
    assert!(records.is_empty());
    assert_eq!(journal.first(), journal.end());
    let all = fill(&journal, &[0, 1, 7, 8, 3000, 500, 4000, 9, 12_345, 2, 4096]);
    assert!(all.windows(2).all(|w| w[0].0 < w[1].0));
    for (position, payload) in &all {
        assert_eq!(&journal.read(*position).unwrap(), payload);
    }
    let (end, bytes, id) = (journal.end(), journal.bytes(), journal.id());
    drop(journal);
    let (journal, records) = open(sim.disk()).unwrap();
    assert_eq!(records, all);
    assert_eq!((journal.end(), journal.bytes(), journal.id()), (end, bytes, id));
    assert_eq!(journal.first(), all[0].0);
}

#[test]
fn one_fdatasync_for_all_that_is_queued() {
    let sim = SimDisk::new();
    let (journal, _) =
        open_with(sim.disk(), Options { segment_bytes: 1 << 20, ..small() }).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    journal.append(b"gate".to_vec(), move |result| {
        result.unwrap();
        entered.send(()).unwrap();
        gate.recv().unwrap();
    });
    inside.recv().unwrap();
    let before = (journal.metrics(), sim.ops());
    let (tell, told) = mpsc::channel();
    for i in 0..100u8 {
        let tell = tell.clone();
        let parts = vec![Bytes::from(vec![i; 3]), Bytes::from(vec![i; 3000])];
        journal.append(parts, move |result| tell.send((i, result.unwrap())).unwrap());
    }
    release.send(()).unwrap();
    let order: Vec<(u8, Position)> = told.iter().take(100).collect();
    assert!(order.iter().enumerate().all(|(i, (n, _))| i == *n as usize));
    let after = journal.metrics();
    assert_eq!(after.fsyncs - before.0.fsyncs, 1);
    assert_eq!((after.records - before.0.records, after.bytes - before.0.bytes), (100, 300_300));
    assert_eq!(sim.ops() - before.1, 2, "one write and one sync");
    assert_eq!(journal.read(order[42].1).unwrap(), vec![42; 3003]);
}

#[test]
fn freed_segments_are_gone_and_recycled() {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    let all = fill(&journal, &[1500; 20]);
    let cut = all[11].0;
    journal.free_before(cut).unwrap();
    assert!(journal.first().segment == cut.segment);
    let err = journal.read(all[0].0).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::NotFound);
    // What was freed is used again, and its old records stay dead.
    let more = fill(&journal, &[1500; 8]);
    drop(journal);
    let (journal, records) = open(sim.disk()).unwrap();
    let mut want: Records = all.into_iter().filter(|(p, _)| p.segment >= cut.segment).collect();
    want.extend(more);
    assert_eq!(records, want);
    // The last segment stays, whatever is asked.
    journal.free_before(Position { segment: u64::MAX, offset: 0 }).unwrap();
    assert_eq!(journal.first().segment, journal.end().segment);
    fill(&journal, &[5]);
}

#[test]
fn a_truncation_takes_all_from_there() {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    let all = fill(&journal, &[700; 20]);
    journal.truncate_from(journal.end()).unwrap();
    let at = all[7].0;
    for wrong in [
        Position { segment: 1, offset: 0 },
        Position { segment: 99, offset: 64 },
        Position { offset: at.offset + 8, ..at },
        Position { offset: u32::MAX, ..at },
    ] {
        journal.truncate_from(wrong).unwrap_err();
    }
    journal.truncate_from(at).unwrap();
    assert_eq!(journal.end(), at);
    journal.read(at).unwrap_err();
    let new = journal.append_sync(b"new".to_vec()).unwrap();
    assert_eq!(new, at);
    drop(journal);
    let (_, records) = open(sim.disk()).unwrap();
    assert_eq!(records[..7], all[..7]);
    assert_eq!(records[7..], [(at, b"new".to_vec())]);
}

#[test]
fn a_record_that_is_too_long_is_refused_and_the_journal_goes_on() {
    let (journal, _) = open(SimDisk::new().disk()).unwrap();
    let part = Bytes::from(vec![0; 1 << 20]);
    let parts = vec![part; (RECORD_MAX >> 20) as usize + 1];
    let err = journal.append_sync(parts).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
    assert!(err.to_string().contains(&RECORD_MAX.to_string()), "{err}");
    fill(&journal, &[3]);
}

#[test]
fn impossible_segments_are_refused() {
    for segment_bytes in [0, 1 << 33, u64::MAX] {
        let options = Options { segment_bytes, ..small() };
        let err = open_with(SimDisk::new().disk(), options).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn the_length_of_segments_may_change_between_two_starts() {
    let sim = SimDisk::new();
    let mut want = Vec::new();
    for segment_bytes in [4096, 65_536, 8192, 4096] {
        let (journal, records) =
            open_with(sim.disk(), Options { segment_bytes, ..small() }).unwrap();
        assert_eq!(records, want);
        want.extend(fill(&journal, &[3000; 5]));
    }
}

#[test]
fn after_a_failed_write_or_sync_nothing_goes_any_more() {
    for nth in 0..2 {
        let sim = SimDisk::new();
        let (journal, _) = open(sim.disk()).unwrap();
        let all = fill(&journal, &[10, 20]);
        sim.fail_at(sim.ops() + nth, 5);
        journal.append_sync(b"lost".to_vec()).unwrap_err();
        let err = journal.append_sync(b"later".to_vec()).unwrap_err();
        assert!(err.to_string().contains("the journal has failed"), "{err}");
        assert_eq!(ozone_platform::os_code(&err), Some(5));
        journal.truncate_from(all[0].0).unwrap_err();
        journal.free_before(journal.end()).unwrap_err();
        assert!(journal.failure().is_some());
        assert_eq!(journal.read(all[1].0).unwrap(), all[1].1);
    }
}

#[test]
fn a_full_disk_fails_the_journal_and_reopening_helps() {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    sim.set_capacity(Some(4096));
    let mut acknowledged = Vec::new();
    let err = loop {
        match journal.append_sync(vec![7; 1000]) {
            Ok(position) => acknowledged.push((position, vec![7; 1000])),
            Err(err) => break err,
        }
    };
    assert_eq!(err.kind(), io::ErrorKind::StorageFull);
    drop(journal);
    sim.set_capacity(None);
    let (journal, records) = open(sim.disk()).unwrap();
    assert_eq!(records, acknowledged);
    fill(&journal, &[1000; 9]);
}

#[test]
fn closing_writes_what_is_queued_and_refuses_what_comes_later() {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    let (tell, told) = mpsc::channel();
    for i in 0..50u8 {
        let tell = tell.clone();
        journal.append(vec![i], move |result| tell.send(result.is_ok()).unwrap());
    }
    drop(journal);
    drop(tell);
    assert_eq!(told.iter().filter(|&ok| ok).count(), 50);
    assert_eq!(open(sim.disk()).unwrap().1.len(), 50);
}

#[test]
fn a_full_queue_blocks_until_there_is_room() {
    let options = Options { queue_bytes: 1000, ..small() };
    let (journal, _) = open_with(SimDisk::new().disk(), options).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fill(&journal, &[900; 50]));
        }
    });
    assert_eq!(journal.metrics().records, 200);
}

#[test]
fn a_panic_in_a_callback_fails_the_journal() {
    let (journal, _) = open(SimDisk::new().disk()).unwrap();
    journal.append(b"x".to_vec(), |_| panic!("expected by this test"));
    let err = loop {
        // The callback runs at any time after its append.
        if let Err(err) = journal.append_sync(b"y".to_vec()) {
            break err;
        }
    };
    assert!(!err.to_string().is_empty());
    assert!(journal.append_sync(b"z".to_vec()).is_err());
}

#[test]
fn on_the_real_disk_with_segments_prepared_ahead() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("journal");
    let options = Options { segment_bytes: 16_384, ..Options::default() };
    let run = |count: usize| {
        let mut records: Records = Vec::new();
        let mut replay = |position, payload: &[u8]| {
            records.push((position, payload.to_vec()));
            Ok(())
        };
        let journal = Journal::open(std_disk(), &dir, options.clone(), &mut replay).unwrap();
        let added = fill(&journal, &vec![777; count]);
        let freed = added.get(count / 2).map(|(position, _)| *position);
        if let Some(position) = freed {
            journal.free_before(position).unwrap();
        }
        (records, added)
    };
    let (_, first) = run(150);
    let (replayed, _) = run(0);
    assert!(replayed.len() < 100 && first.ends_with(&replayed) && !replayed.is_empty());
}

#[test]
fn a_journal_belongs_to_one_version() {
    let sim = SimDisk::new();
    drop(open(sim.disk()).unwrap());
    let path = Path::new(DIR).join("0000000000000001.seg");
    let file = sim.disk().open(&path, OpenMode::Write).unwrap();
    file.write_all_at(&[2], 8).unwrap();
    let err = open(sim.disk()).unwrap_err();
    assert!(err.to_string().contains("format is 2, this version knows 1"), "{err}");
}
