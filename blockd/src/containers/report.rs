//! What is in a heartbeat: the disks, and whatever containerd has not heard of yet.

use std::collections::{BTreeMap, BTreeSet};

use ozone_proto::containerd::{BadBlock, ContainerReport, DiskUsage, HeartbeatRequest};
use ozone_types::{BlockId, ContainerId};

use crate::store::{Container, DiskStore, Slot, Store};

/// At most this many bad blocks go in one heartbeat; the rest follow in the next.
const BAD_BLOCKS: usize = 4096;

/// News that containerd has not confirmed yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// Everything is reported, not only what changed.
    pub full: bool,
    changed: BTreeSet<ContainerId>,
    /// Disks that were out of service when it was last looked.
    failed: usize,
    bad: BTreeMap<BlockId, String>,
    deleted: BTreeSet<u64>,
}

impl Pending {
    /// Takes what the disks and the deletions have to say.
    pub fn gather(&mut self, store: &Store, deleted: impl IntoIterator<Item = u64>) {
        let mut failed = 0;
        for disk in store.disks() {
            failed += usize::from(disk.failure().is_some());
            self.changed.append(&mut disk.take_changed());
            self.bad.append(&mut disk.take_bad());
        }
        if failed != self.failed {
            // Only a full report says that its containers are not here any more.
            self.full = true;
            self.failed = failed;
        }
        self.deleted.extend(deleted);
    }

    pub fn request(&self, blockd: Vec<u8>, store: &Store) -> HeartbeatRequest {
        let bad = self.bad.iter().take(BAD_BLOCKS);
        HeartbeatRequest {
            blockd,
            disks: disks(store),
            full_report: self.full,
            containers: self.containers(store),
            deletions_done: self.deleted.iter().copied().collect(),
            bad_blocks: bad
                .map(|(block, why)| BadBlock { block: Some((*block).into()), why: why.clone() })
                .collect(),
        }
    }

    /// containerd has heard `request`, which was made from this.
    pub fn confirm(&mut self, request: &HeartbeatRequest) {
        self.full = false;
        self.changed.clear();
        for done in &request.deletions_done {
            self.deleted.remove(done);
        }
        for bad in &request.bad_blocks {
            if let Some(block) = &bad.block {
                self.bad.remove(&block.into());
            }
        }
    }

    fn containers(&self, store: &Store) -> Vec<ContainerReport> {
        let mut reports = Vec::new();
        for disk in store.disks() {
            // A disk that has failed does not hold its containers any more.
            if disk.failure().is_some() {
                continue;
            }
            for (id, container) in disk.containers() {
                if self.full || self.changed.contains(&id) {
                    reports.push(report(disk, id, container));
                }
            }
        }
        reports
    }
}

fn report(disk: &DiskStore, id: ContainerId, container: Container) -> ContainerReport {
    ContainerReport {
        container: id.0,
        blocks: container.blocks,
        bytes: container.bytes,
        closed: container.closed,
        disk: disk.id().to_vec(),
    }
}

/// All disks, also those out of service.
pub fn disks(store: &Store) -> Vec<DiskUsage> {
    let usage = |slot: &Slot| match slot {
        Slot::Open(disk) => {
            let usage = disk.usage();
            DiskUsage {
                disk: disk.id().to_vec(),
                path: disk.path().display().to_string(),
                capacity: usage.capacity,
                used: usage.used,
                free: usage.free,
                failed: disk.failure().unwrap_or_default(),
            }
        }
        Slot::Failed { path, id, why } => DiskUsage {
            disk: id.map(|id| id.to_vec()).unwrap_or_default(),
            path: path.display().to_string(),
            failed: why.clone(),
            ..DiskUsage::default()
        },
    };
    store.slots().iter().map(usage).collect()
}

/// What is wrong with the disks, for /healthz.
pub fn problems(store: &Store) -> Vec<String> {
    let problem = |slot: &Slot| match slot {
        Slot::Open(disk) => {
            let path = disk.path();
            match disk.failure() {
                Some(why) => Some(format!("disk {} is out of service: {why}", path.display())),
                None if disk.usage().full => Some(format!("disk {} is full", path.display())),
                None => None,
            }
        }
        Slot::Failed { path, why, .. } => {
            Some(format!("disk {} is out of service: {why}", path.display()))
        }
    };
    store.slots().iter().filter_map(problem).collect()
}
