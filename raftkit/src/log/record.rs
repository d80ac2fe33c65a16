//! The records of the Raft log in the journal: docs/format/raftlog.md.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{self, damaged};
use crate::types::{self, Command, Entry, LogId, Payload, Vote, parts};

const ENTRY: u8 = 1;
const STATE: u8 = 2;
const TRUNCATE: u8 = 3;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes of an entry's record before its payload.
pub const ENTRY_HEADER: usize = 18;

/// What one record of the journal says.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Entry(Entry),
    State(State),
    /// Entries from this index on are gone.
    Truncate(u64),
}

/// All that the log holds besides entries. Written whole each time, so the last one counts and no
/// older segment is needed for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub vote: Option<Vote>,
    /// Entries up to this one are gone: a checkpoint holds their effects.
    pub purged: Option<LogId>,
}

/// An entry's record in two parts, so that a large command is not copied.
pub fn encode_entry(entry: &Entry) -> Vec<Bytes> {
    let (term, index) = parts(&entry.log_id);
    let (kind, payload) = match &entry.payload {
        Payload::Blank => (BLANK, Bytes::new()),
        Payload::Normal(command) => (COMMAND, command.0.clone()),
        Payload::Membership(m) => (MEMBERSHIP, codec::encode_membership(m)),
    };
    let mut header = BytesMut::with_capacity(ENTRY_HEADER);
    header.put_u8(ENTRY);
    header.put_u64(term);
    header.put_u64(index);
    header.put_u8(kind);
    vec![header.freeze(), payload]
}

pub fn encode_state(state: &State) -> Bytes {
    let mut out = BytesMut::with_capacity(36);
    out.put_u8(STATE);
    match &state.vote {
        Some(vote) => {
            out.put_u8(1 + u8::from(vote.committed));
            out.put_u64(vote.leader_id.term);
            out.put_u64(vote.leader_id.voted_for);
        }
        None => out.put_bytes(0, 17),
    }
    match &state.purged {
        Some(id) => {
            let (term, index) = parts(id);
            out.put_u8(1);
            out.put_u64(term);
            out.put_u64(index);
        }
        None => out.put_bytes(0, 17),
    }
    out.freeze()
}

pub fn encode_truncate(from: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(TRUNCATE);
    out.put_u64(from);
    out.freeze()
}

pub fn decode(record: &[u8]) -> io::Result<Record> {
    let mut reader = Reader(record);
    match reader.u8()? {
        ENTRY => {
            let log_id = types::log_id(reader.u64()?, reader.u64()?);
            let payload = match reader.u8()? {
                BLANK if reader.0.is_empty() => Payload::Blank,
                COMMAND => Payload::Normal(Command(Bytes::copy_from_slice(reader.0))),
                MEMBERSHIP => Payload::Membership(codec::decode_membership(reader.0)?),
                _ => return Err(damaged("log entry")),
            };
            Ok(Record::Entry(Entry { log_id, payload }))
        }
        STATE => {
            let state = State { vote: reader.vote()?, purged: reader.id()? };
            reader.end(Record::State(state))
        }
        TRUNCATE => {
            let from = reader.u64()?;
            reader.end(Record::Truncate(from))
        }
        _ => Err(damaged("log record")),
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u8(&mut self) -> io::Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| damaged("log record"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn u64(&mut self) -> io::Result<u64> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(|| damaged("log record"))?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*first))
    }

    fn vote(&mut self) -> io::Result<Option<Vote>> {
        let (kind, term, node) = (self.u8()?, self.u64()?, self.u64()?);
        match (kind, term, node) {
            (0, 0, 0) => Ok(None),
            (1 | 2, term, node) => Ok(Some(codec::vote(term, node, kind == 2))),
            _ => Err(damaged("vote")),
        }
    }

    fn id(&mut self) -> io::Result<Option<LogId>> {
        match (self.u8()?, self.u64()?, self.u64()?) {
            (0, 0, 0) => Ok(None),
            (1, term, index) => Ok(Some(types::log_id(term, index))),
            _ => Err(damaged("log id")),
        }
    }

    fn end(&self, record: Record) -> io::Result<Record> {
        if self.0.is_empty() { Ok(record) } else { Err(damaged("log record")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::config::Peer;
    use crate::types::Membership;

    fn join(parts: Vec<Bytes>) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn records_round_trip() {
        let peer = |n: u64| Peer { raft: format!("h{n}:9872"), rpc: format!("h{n}:9862") };
        let members: BTreeMap<u64, Peer> = [(1, peer(1)), (2, peer(2))].into();
        let membership = Membership::new(vec![BTreeSet::from([1, 2])], members).unwrap();
        let payloads = [
            Payload::Blank,
            Payload::Normal(Command(Bytes::new())),
            Payload::Normal(Command(Bytes::from_static(b"do it"))),
            Payload::Membership(membership),
        ];
        for payload in payloads {
            let entry = Entry { log_id: types::log_id(3, 77), payload };
            assert_eq!(decode(&join(encode_entry(&entry))).unwrap(), Record::Entry(entry));
        }
        let votes = [None, Some(codec::vote(0, 0, false)), Some(codec::vote(5, 2, true))];
        for vote in votes {
            for purged in [None, Some(types::log_id(0, 0)), Some(types::log_id(9, 100))] {
                let state = State { vote, purged };
                assert_eq!(decode(&encode_state(&state)).unwrap(), Record::State(state));
            }
        }
        assert_eq!(decode(&encode_truncate(12)).unwrap(), Record::Truncate(12));
    }

    #[test]
    fn every_cut_of_a_fixed_record_is_refused() {
        let state =
            State { vote: Some(codec::vote(5, 2, true)), purged: Some(types::log_id(1, 2)) };
        for record in [encode_state(&state), encode_truncate(7)] {
            for len in 0..record.len() {
                assert!(decode(&record[..len]).is_err());
            }
            assert!(decode(&[&record[..], &[0]].concat()).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0u8..5) {
            let _ = decode(&bytes);
            let _ = decode(&[&[kind], &bytes[..]].concat());
        }
    }
}
