//! POSIX ACLs, after acl(5) and Linux's fs/posix_acl.c: a list of entries and nothing else.

use ozone_types::ErrorCode;

use super::ModelResult;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

impl Acl {
    /// `None` for a value that stands for no ACL.
    pub(super) fn parse(value: &[u8]) -> ModelResult<Option<Acl>> {
        if value.is_empty() {
            return Ok(None);
        }
        if value.len() < 4 {
            return Err(ErrorCode::Invalid);
        }
        if value[..4] != [2, 0, 0, 0] {
            return Err(ErrorCode::Unsupported);
        }
        if !(value.len() - 4).is_multiple_of(8) {
            return Err(ErrorCode::Invalid);
        }
        let entry = |bytes: &[u8]| Entry {
            tag: u16::from_le_bytes([bytes[0], bytes[1]]),
            perm: u16::from_le_bytes([bytes[2], bytes[3]]),
            id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        let acl = Acl(value[4..].chunks(8).map(entry).collect());
        match acl {
            Acl(entries) if entries.is_empty() => Ok(None),
            acl if acl.is_valid() => Ok(Some(acl)),
            _ => Err(ErrorCode::Invalid),
        }
    }

    fn count(&self, tag: u16) -> usize {
        self.0.iter().filter(|entry| entry.tag == tag).count()
    }

    fn is_valid(&self) -> bool {
        let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        let named = self.count(USER) + self.count(GROUP);
        let ids_differ = self.0.iter().enumerate().all(|(n, entry)| {
            let named = entry.tag == USER || entry.tag == GROUP;
            let again = self.0[..n].iter().any(|e| (e.tag, e.id) == (entry.tag, entry.id));
            !named || (entry.id != u32::MAX && !again)
        });
        // The order of entries is that of their tags' numbers.
        self.0.is_sorted_by_key(|entry| entry.tag)
            && self.0.iter().all(|entry| known.contains(&entry.tag) && entry.perm <= 7)
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&tag| self.count(tag) == 1)
            && self.count(MASK) <= 1
            && (named == 0 || self.count(MASK) == 1)
            && ids_differ
    }

    pub(super) fn value(&self) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for entry in &self.0 {
            let named = entry.tag == USER || entry.tag == GROUP;
            value.extend(entry.tag.to_le_bytes());
            value.extend(entry.perm.to_le_bytes());
            value.extend(if named { entry.id } else { u32::MAX }.to_le_bytes());
        }
        value
    }

    /// Only what a mode says as well.
    pub(super) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The three entries that the 9 bits of a mode stand for, from the owner's on.
    fn classes(&self) -> [u16; 3] {
        let group = if self.count(MASK) == 1 { MASK } else { GROUP_OBJ };
        [USER_OBJ, group, OTHER]
    }

    pub(super) fn bits(&self) -> u32 {
        let perm = |tag| self.0.iter().find(|e| e.tag == tag).map_or(0, |e| u32::from(e.perm));
        let [owner, group, other] = self.classes().map(perm);
        owner * 64 + group * 8 + other
    }

    pub(super) fn set_bits(&mut self, mode: u32) {
        let [owner, group, other] = self.classes();
        for entry in &mut self.0 {
            for (tag, bits) in [(owner, mode >> 6), (group, mode >> 3), (other, mode)] {
                if entry.tag == tag {
                    entry.perm = (bits & 7) as u16;
                }
            }
        }
    }
}
