//! locate: where blocks are. Rows: reads the block, its container and the container's servers.

use std::collections::BTreeMap;
use std::io;

use ozone_proto::common::{Location, Replica};
use ozone_proto::metad_log::BlockRecord;
use ozone_raftkit::store::Read;
use ozone_types::{BlockId, BlockdId, ContainerId};

use crate::error::OpResult;
use crate::tables::{BLOCKDS, BLOCKS, CONTAINERS};

/// The locations of the blocks that exist, without tokens, in the order given.
pub fn locate(tables: &impl Read, blocks: &[BlockId]) -> OpResult<Vec<Location>> {
    let mut locator = Locator::default();
    let mut locations = Vec::new();
    for &block in blocks {
        if let Some(record) = BLOCKS.get(tables, &block)? {
            locations.push(locator.locate(tables, block, &record)?);
        }
    }
    Ok(locations)
}

/// The servers of a container, as placed, dead ones included; one whose address is not known yet
/// is left out. `None`: no such container.
pub fn replicas(tables: &impl Read, container: ContainerId) -> io::Result<Option<Vec<Replica>>> {
    let Some(record) = CONTAINERS.get(tables, &container)? else { return Ok(None) };
    let mut replicas = Vec::with_capacity(record.blockds.len());
    for blockd in record.blockds {
        // The table's decoding has checked the ids.
        let Some(id) = BlockdId::from_slice(&blockd) else { continue };
        if let Some(server) = BLOCKDS.get(tables, &id)? {
            replicas.push(Replica { blockd, address: server.address });
        }
    }
    Ok(Some(replicas))
}

/// Locates blocks that are mostly in the same few containers.
#[derive(Debug, Default)]
pub(super) struct Locator {
    containers: BTreeMap<ContainerId, Vec<Replica>>,
}

impl Locator {
    pub fn locate(
        &mut self,
        tables: &impl Read,
        block: BlockId,
        record: &BlockRecord,
    ) -> io::Result<Location> {
        use std::collections::btree_map::Entry;
        let replicas = match self.containers.entry(block.container) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(
                replicas(tables, block.container)?
                    .ok_or_else(|| BLOCKS.corrupt(&block, "its container has no row"))?,
            ),
        };
        Ok(Location {
            block: Some(block.into()),
            epoch: record.epoch,
            replicas: replicas.clone(),
            token: Default::default(),
        })
    }
}
