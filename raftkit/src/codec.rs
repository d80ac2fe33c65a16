//! Checked conversions between openraft's types and the messages of raft.proto.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::vote::RaftLeaderId;
use ozone_proto::raft as wire;
use prost::Message;

use crate::config::Peer;
use crate::types::{
    self, Command, Entry, LogId, Membership, Payload, StoredMembership, Vote, parts,
};

pub fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged or foreign {what}"))
}

pub fn id_to_wire(id: &LogId) -> wire::LogId {
    let (term, index) = parts(id);
    wire::LogId { term, index }
}

pub fn id_from_wire(id: wire::LogId) -> LogId {
    types::log_id(id.term, id.index)
}

pub fn ids_to_wire(id: Option<&LogId>) -> Option<wire::LogId> {
    id.map(id_to_wire)
}

pub fn ids_from_wire(id: Option<wire::LogId>) -> Option<LogId> {
    id.map(id_from_wire)
}

pub fn vote_to_wire(vote: &Vote) -> wire::Ballot {
    wire::Ballot {
        term: vote.leader_id.term,
        node: *vote.leader_id.node_id(),
        committed: vote.committed,
    }
}

pub fn vote_from_wire(ballot: Option<wire::Ballot>) -> io::Result<Vote> {
    let ballot = ballot.ok_or_else(|| damaged("message: no ballot"))?;
    Ok(vote(ballot.term, ballot.node, ballot.committed))
}

pub fn vote(term: u64, node: u64, committed: bool) -> Vote {
    if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) }
}

pub fn membership_to_wire(membership: &Membership) -> wire::Membership {
    wire::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| wire::membership::Voters { nodes: set.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, peer)| wire::Member {
                node: *node,
                raft_address: peer.raft.clone(),
                rpc_address: peer.rpc.clone(),
            })
            .collect(),
    }
}

pub fn membership_from_wire(membership: wire::Membership) -> io::Result<Membership> {
    let voters: Vec<BTreeSet<u64>> =
        membership.voters.into_iter().map(|set| set.nodes.into_iter().collect()).collect();
    let members: BTreeMap<u64, Peer> = membership
        .members
        .into_iter()
        .map(|member| (member.node, Peer { raft: member.raft_address, rpc: member.rpc_address }))
        .collect();
    Membership::new(voters, members).map_err(|_| damaged("membership"))
}

pub fn stored_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log: ids_to_wire(stored.log_id().as_ref()),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub fn stored_from_wire(stored: wire::StoredMembership) -> io::Result<StoredMembership> {
    let membership = membership_from_wire(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(ids_from_wire(stored.log), membership))
}

/// For `store::Mark`.
pub fn encode_stored(stored: &StoredMembership) -> Vec<u8> {
    stored_to_wire(stored).encode_to_vec()
}

/// The inverse of [`encode_stored`]; empty bytes are "no members yet".
pub fn decode_stored(bytes: &[u8]) -> io::Result<StoredMembership> {
    let stored = wire::StoredMembership::decode(bytes).map_err(|_| damaged("membership"))?;
    stored_from_wire(stored)
}

pub fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        Payload::Blank => wire::entry::Payload::Blank(wire::entry::Blank {}),
        Payload::Normal(command) => wire::entry::Payload::Command(command.0.clone()),
        Payload::Membership(m) => wire::entry::Payload::Membership(membership_to_wire(m)),
    };
    wire::Entry { id: Some(id_to_wire(&entry.log_id)), payload: Some(payload) }
}

pub fn entry_from_wire(entry: wire::Entry) -> io::Result<Entry> {
    let id = entry.id.ok_or_else(|| damaged("entry: no id"))?;
    let payload = match entry.payload.ok_or_else(|| damaged("entry: no payload"))? {
        wire::entry::Payload::Blank(_) => Payload::Blank,
        wire::entry::Payload::Command(command) => Payload::Normal(Command(command)),
        wire::entry::Payload::Membership(m) => Payload::Membership(membership_from_wire(m)?),
    };
    Ok(Entry { log_id: id_from_wire(id), payload })
}

/// A membership as it stands in a log record.
pub fn encode_membership(membership: &Membership) -> Bytes {
    membership_to_wire(membership).encode_to_vec().into()
}

pub fn decode_membership(bytes: &[u8]) -> io::Result<Membership> {
    membership_from_wire(wire::Membership::decode(bytes).map_err(|_| damaged("membership"))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memberships_round_trip() {
        let peer = |n: u64| Peer { raft: format!("r{n}"), rpc: format!("m{n}") };
        let members: BTreeMap<u64, Peer> = (1..=4).map(|n| (n, peer(n))).collect();
        for voters in [vec![[1, 2, 3].into()], vec![[1, 2, 3].into(), [2, 3, 4].into()]] {
            let membership = Membership::new(voters, members.clone()).unwrap();
            let stored = StoredMembership::new(Some(types::log_id(2, 9)), membership);
            assert_eq!(decode_stored(&encode_stored(&stored)).unwrap(), stored);
        }
        assert_eq!(decode_stored(&[]).unwrap(), StoredMembership::default());
    }

    #[test]
    fn a_voter_without_an_address_is_refused() {
        let voters = wire::membership::Voters { nodes: vec![1, 2] };
        let member = wire::Member { node: 1, ..Default::default() };
        let membership = wire::Membership { voters: vec![voters], members: vec![member] };
        assert!(membership_from_wire(membership).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_stored(&bytes);
            let _ = decode_membership(&bytes);
            if let Ok(entry) = wire::Entry::decode(&bytes[..]) {
                let _ = entry_from_wire(entry);
            }
        }
    }
}
