//! Replicas that containerd must hear about: they failed a client, or a seal.

use std::collections::BTreeMap;

use ozone_types::{BlockdId, ContainerId};
use parking_lot::Mutex;

/// A set, so that many blocks of one failed replica are one report. Bounded by the replicas there are.
#[derive(Debug, Default)]
pub struct Reports {
    /// Lock order: a leaf.
    waiting: Mutex<BTreeMap<(ContainerId, BlockdId), String>>,
}

impl Reports {
    pub fn add(&self, container: ContainerId, blockd: BlockdId, why: impl Into<String>) {
        self.waiting.lock().entry((container, blockd)).or_insert_with(|| why.into());
    }

    /// One that has not been delivered.
    pub fn first(&self) -> Option<(ContainerId, BlockdId, String)> {
        self.waiting.lock().first_key_value().map(|(&(c, b), why)| (c, b, why.clone()))
    }

    /// containerd has it.
    pub fn delivered(&self, container: ContainerId, blockd: BlockdId) {
        self.waiting.lock().remove(&(container, blockd));
    }
}
