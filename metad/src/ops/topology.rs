//! What containerd has told about containers and block servers. Rows: one per thing told.

use std::io;

use ozone_proto::metad_log::UpdateTopology;
use ozone_raftkit::store::Txn;
use ozone_types::{BlockdId, ContainerId, ErrorCode};

use crate::error::{OpResult, refuse};
use crate::tables::{BLOCKDS, BLOCKS, CONTAINERS, Key};

/// Errors: PROTOCOL for an id of a block server that is none. A container that still has blocks
/// keeps its row.
pub fn update_topology(txn: &mut Txn<'_>, op: &UpdateTopology) -> OpResult<()> {
    for blockd in &op.blockds {
        BLOCKDS.put(txn, &server(&blockd.blockd)?, blockd);
    }
    for container in &op.containers {
        for blockd in &container.blockds {
            server(blockd)?;
        }
        CONTAINERS.put(txn, &ContainerId(container.container), container);
    }
    for &id in &op.containers_gone {
        let id = ContainerId(id);
        if !has_blocks(txn, id)? {
            CONTAINERS.delete(txn, &id);
        }
    }
    Ok(())
}

fn has_blocks(txn: &Txn<'_>, container: ContainerId) -> io::Result<bool> {
    Ok(BLOCKS.prefix(txn, &container.encode()).next().transpose()?.is_some())
}

fn server(id: &[u8]) -> OpResult<BlockdId> {
    match BlockdId::from_slice(id) {
        Some(id) => Ok(id),
        None => refuse(ErrorCode::Protocol, "message without a valid block server id"),
    }
}
