//! A repeatable series of appends, truncations and frees, with a model of what must survive.

use std::io;
use std::sync::mpsc;

use ozone_journal::{Journal, Position};

use crate::Records;

/// Splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What was being done when the power went, and is therefore open.
#[derive(Clone, Debug, Default)]
pub enum Doubt {
    #[default]
    None,
    /// Any prefix of these may have been added.
    Appends(Vec<Vec<u8>>),
    /// All from this index on, or nothing, is gone.
    Truncation(usize),
    /// Segments below this may be gone, the lowest first.
    Free(u64),
}

/// What the journal has acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub live: Records,
    pub doubt: Doubt,
    /// Distinguishes the payloads.
    serial: u64,
}

impl Model {
    pub fn of(records: Records, serial: u64) -> Model {
        Model { live: records, doubt: Doubt::None, serial }
    }

    /// Does `steps` steps, or as many as the disk lets it.
    pub fn run(&mut self, journal: &Journal, dice: &mut Dice, steps: usize) -> io::Result<()> {
        for _ in 0..steps {
            match dice.roll(10) {
                0 | 1 if self.live.len() > 2 => self.truncate(journal, dice)?,
                2 if self.live.len() > 4 => self.free(journal, dice)?,
                3 | 4 => self.append_here(journal, dice)?,
                _ => self.append(journal, dice)?,
            }
        }
        Ok(())
    }

    fn payload(&mut self, dice: &mut Dice) -> Vec<u8> {
        self.serial += 1;
        let len = match dice.roll(12) {
            0 => 0,
            1..=5 => dice.roll(60),
            6..=9 => dice.roll(900),
            10 => 1000 + dice.roll(3000),
            _ => dice.roll(9000),
        } as usize;
        // Long runs of zeros are the likeliest to fit where they should not.
        let mut payload = vec![if dice.roll(3) == 0 { 0 } else { self.serial as u8 }; len];
        let tag = self.serial.to_le_bytes();
        let n = len.min(8);
        payload[..n].copy_from_slice(&tag[..n]);
        payload
    }

    /// A record alone, and while its `done` holds the writer, several that go as one group.
    fn append(&mut self, journal: &Journal, dice: &mut Dice) -> io::Result<()> {
        let payloads: Vec<_> = (0..=dice.roll(6)).map(|_| self.payload(dice)).collect();
        self.doubt = Doubt::Appends(payloads.clone());
        let (release, gate) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let mut rest = payloads.clone().into_iter();
        if let (Some(first), tell) = (rest.next(), tell.clone()) {
            journal.append(first, move |result| {
                // Nobody waits for the rest after the first error.
                let _ = tell.send(result);
                entered.send(()).unwrap();
                gate.recv().unwrap();
            });
        }
        inside.recv().unwrap();
        for payload in rest {
            let tell = tell.clone();
            journal.append(payload, move |result| {
                let _ = tell.send(result);
            });
        }
        release.send(()).unwrap();
        drop(tell);
        for (payload, result) in payloads.into_iter().zip(told.iter()) {
            let position = result?;
            if let Doubt::Appends(open) = &mut self.doubt {
                open.remove(0);
            }
            self.live.push((position, payload));
        }
        self.doubt = Doubt::None;
        Ok(())
    }

    /// Records that this thread writes itself.
    fn append_here(&mut self, journal: &Journal, dice: &mut Dice) -> io::Result<()> {
        for _ in 0..=dice.roll(3) {
            let payload = self.payload(dice);
            self.doubt = Doubt::Appends(vec![payload.clone()]);
            let (tell, told) = mpsc::channel();
            journal.append_here(payload.clone(), move |result| tell.send(result).unwrap());
            self.live.push((told.recv().unwrap()?, payload));
            self.doubt = Doubt::None;
        }
        Ok(())
    }

    fn truncate(&mut self, journal: &Journal, dice: &mut Dice) -> io::Result<()> {
        let from_end = 1 + dice.roll(self.live.len().min(12) as u64) as usize;
        let at = self.live.len() - from_end;
        self.doubt = Doubt::Truncation(at);
        journal.truncate_from(self.live[at].0)?;
        self.live.truncate(at);
        self.doubt = Doubt::None;
        Ok(())
    }

    fn free(&mut self, journal: &Journal, dice: &mut Dice) -> io::Result<()> {
        let at = self.live[dice.roll(self.live.len() as u64) as usize].0;
        self.doubt = Doubt::Free(at.segment);
        journal.free_before(at)?;
        self.live.retain(|(position, _)| position.segment >= at.segment);
        self.doubt = Doubt::None;
        Ok(())
    }

    /// Panics unless `records` is what the journal may hold after a loss of power.
    pub fn check(&self, records: &Records, what: &str) {
        let payloads = |records: &[(Position, Vec<u8>)]| -> Vec<Vec<u8>> {
            records.iter().map(|(_, payload)| payload.clone()).collect()
        };
        let ok = match &self.doubt {
            Doubt::None => *records == self.live,
            Doubt::Appends(open) => {
                let split = self.live.len().min(records.len());
                let more = payloads(&records[split..]);
                records[..split] == self.live && open.starts_with(&more)
            }
            Doubt::Truncation(at) => *records == self.live || records[..] == self.live[..*at],
            Doubt::Free(segment) => {
                let first = records.first().map_or(*segment, |(position, _)| position.segment);
                let kept = self.live.iter().filter(|(p, _)| p.segment >= first.min(*segment));
                records.iter().eq(kept)
            }
        };
        assert!(
            ok,
            "{what}: found {records:?}\nacknowledged {:?}\nin doubt {:?}",
            self.live, self.doubt
        );
    }

    pub fn serial(&self) -> u64 {
        self.serial
    }
}
