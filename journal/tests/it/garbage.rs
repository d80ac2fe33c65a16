//! Damaged files: an error that names file and offset, or a clean cut; never a panic, never a
//! wrong record.

use std::io;
use std::path::PathBuf;

use ozone_platform::OpenMode;
use ozone_testkit::simdisk::SimDisk;
use proptest::prelude::*;

use crate::{DIR, Records, open};

fn segment(number: u64) -> PathBuf {
    PathBuf::from(DIR).join(format!("{number:016x}.seg"))
}

/// A journal of three segments, each record in a group of its own.
fn three_segments() -> (SimDisk, Records) {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    let payloads = (0..14u8).map(|i| vec![i; 600 + i as usize]);
    let all: Records = payloads.map(|p| (journal.append_sync(p.clone()).unwrap(), p)).collect();
    assert_eq!(journal.end().segment, 3);
    (sim, all)
}

/// The content of every file, to show that an error leaves all as it was.
fn files(sim: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let disk = sim.disk();
    let names = disk.list(DIR.as_ref()).unwrap();
    let read = |name: std::ffi::OsString| {
        let file = disk.open(&PathBuf::from(DIR).join(&name), OpenMode::Read).unwrap();
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        (name.into_string().unwrap(), content)
    };
    names.into_iter().map(read).collect()
}

fn refused(sim: &SimDisk) -> String {
    let before = files(sim);
    let err = open(sim.disk()).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::InvalidData, "{err}");
    assert!(files(sim) == before, "an error must change nothing");
    err.to_string()
}

#[test]
fn damage_before_later_segments_is_an_error_with_file_and_offset() {
    let (sim, all) = three_segments();
    let bad = all[2].0;
    assert_eq!(bad.segment, 1);
    sim.flip(&segment(1), u64::from(bad.offset) + 100, 1);
    let text = refused(&sim);
    let offset = format!("offset {}:", bad.offset);
    assert!(text.contains("0000000000000001.seg") && text.contains(&offset), "{text}");
}

#[test]
fn damage_before_later_groups_of_the_last_segment_is_an_error_too() {
    let (sim, all) = three_segments();
    let last: Vec<_> = all.iter().filter(|(p, _)| p.segment == 3).collect();
    assert!(last.len() > 1);
    sim.flip(&segment(3), u64::from(last[0].0.offset) + 20, 0x80);
    let text = refused(&sim);
    assert!(text.contains(&format!("the one at {} was written after", last[1].0.offset)), "{text}");
}

#[test]
fn damage_in_the_last_group_is_a_torn_tail() {
    let (sim, all) = three_segments();
    let last = all[13].0;
    sim.flip(&segment(3), u64::from(last.offset) + 20, 0x80);
    let (journal, records) = open(sim.disk()).unwrap();
    assert_eq!(records, all[..13]);
    assert_eq!(journal.end(), last);
}

#[test]
fn missing_shortened_and_foreign_segments_are_errors() {
    let (sim, _) = three_segments();
    sim.disk().remove(&segment(2)).unwrap();
    assert!(
        refused(&sim)
            .contains("0000000000000002.seg is damaged at offset 0: the segment is missing")
    );

    for len in [0, 63, 64, 1000, 4095, 4097] {
        for number in 1..=3 {
            let (sim, _) = three_segments();
            let file = sim.disk().open(&segment(number), OpenMode::Write).unwrap();
            file.set_len(len).unwrap();
            assert!(refused(&sim).contains(&format!("{number:016x}.seg")));
        }
    }

    let (sim, _) = three_segments();
    sim.disk().rename(&segment(2), &segment(4)).unwrap();
    sim.disk().rename(&segment(3), &segment(2)).unwrap();
    assert!(refused(&sim).contains("its header says that it is segment 3"));

    let ((sim, _), (other, _)) = (three_segments(), three_segments());
    let (_, content) = files(&other).remove(1);
    let file = sim.disk().open(&segment(2), OpenMode::Write).unwrap();
    file.write_all_at(&content, 0).unwrap();
    assert!(refused(&sim).contains("it belongs to another journal"));
}

#[test]
fn a_damaged_truncation_is_an_error() {
    let (sim, _) = three_segments();
    let path = PathBuf::from(DIR).join("truncate");
    let file = sim.disk().open(&path, OpenMode::Create).unwrap();
    for content in [&b""[..], b"x", &[0; 48], &[0; 49]] {
        file.set_len(0).unwrap();
        file.write_all_at(content, 0).unwrap();
        assert!(refused(&sim).contains("truncate is damaged"));
    }
}

#[test]
fn an_error_of_the_caller_ends_the_opening() {
    let (sim, _) = three_segments();
    let before = files(&sim);
    let mut seen = 0;
    let err =
        ozone_journal::Journal::open(sim.disk(), DIR.as_ref(), crate::small(), &mut |_, _| {
            seen += 1;
            if seen == 3 { Err(io::Error::other("enough")) } else { Ok(()) }
        })
        .unwrap_err();
    assert_eq!((err.to_string().as_str(), seen), ("enough", 3));
    assert!(files(&sim) == before);
}

/// Whatever the bytes are: no panic, and only records that were written, in their order.
fn sound(sim: &SimDisk, all: &Records) -> Result<(), TestCaseError> {
    if let Ok((journal, records)) = open(sim.disk()) {
        prop_assert!(all.starts_with(&records), "{records:?}");
        for (position, _) in all.iter().skip(records.len()) {
            prop_assert!(journal.read(*position).is_err());
        }
        journal.append_sync(b"on".to_vec()).unwrap();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits(flips in proptest::collection::vec((1u64..4, 0u64..4096, 0u8..8), 1..4)) {
        let (sim, all) = three_segments();
        for (number, offset, bit) in flips {
            sim.flip(&segment(number), offset, 1 << bit);
        }
        sound(&sim, &all)?;
    }

    #[test]
    fn overwritten_runs(number in 1u64..4, offset in 0u64..4000, junk in proptest::collection::vec(any::<u8>(), 1..96)) {
        let (sim, all) = three_segments();
        let file = sim.disk().open(&segment(number), OpenMode::Write).unwrap();
        file.write_all_at(&junk, offset).unwrap();
        file.set_len(4096).unwrap();
        sound(&sim, &all)?;
    }

    #[test]
    fn random_files(names in proptest::collection::vec("(000000000000000[0-9]\\.seg|spare-[0-9]|truncate|truncate\\.tmp|zzz|[0-9a-f]{16}\\.seg)", 1..4), junk in proptest::collection::vec(any::<u8>(), 0..8192)) {
        let sim = SimDisk::new();
        sim.disk().create_dir_all(DIR.as_ref()).unwrap();
        for name in names {
            let file = sim.disk().open(&PathBuf::from(DIR).join(name), OpenMode::Create).unwrap();
            file.write_all_at(&junk, 0).unwrap();
        }
        sound(&sim, &Vec::new())?;
    }
}
