//! find_paths: how inodes are called, found by a walk through the directories. Rows: reads one per name.

use std::collections::HashSet;

use ozone_proto::metad::FoundPath;
use ozone_raftkit::store::Read;
use ozone_types::InodeId;

use super::walk::{Met, Walk};
use crate::error::OpResult;
use crate::tables::InodeKey;

/// Looks for names of inodes.
#[derive(Debug)]
pub struct PathFinder {
    walk: Walk,
    wanted: HashSet<InodeId>,
    found: Vec<FoundPath>,
}

impl PathFinder {
    pub fn new(root: InodeKey, wanted: impl IntoIterator<Item = InodeId>) -> Self {
        let mut finder = PathFinder {
            walk: Walk::below(root),
            wanted: wanted.into_iter().collect(),
            found: Vec::new(),
        };
        if finder.wanted.remove(&root.inode) {
            finder.found.push(FoundPath { inode: root.inode.0, path: Vec::new() });
        }
        finder
    }

    /// Nothing is left to look for, or to look at.
    pub fn is_done(&self) -> bool {
        self.wanted.is_empty() || self.walk.is_over()
    }

    /// Looks at about `names` names more.
    pub fn go_on(&mut self, tables: &impl Read, names: usize) -> OpResult<()> {
        let (wanted, found) = (&mut self.wanted, &mut self.found);
        self.walk.go_on(tables, names, |Met { dir, target, row }| {
            if wanted.remove(&target.inode) {
                let path = [dir, &row.name].concat();
                found.push(FoundPath { inode: target.inode.0, path });
            }
        })
    }

    pub fn into_found(self) -> Vec<FoundPath> {
        self.found
    }
}
