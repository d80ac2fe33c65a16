//! Reading a range of a block from whichever replica answers with intact bytes.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use ozone_proto::blockd::{ReadReply, ReadRequest};
use ozone_proto::common::{Location, Replica};
use ozone_types::{BlockId, ErrorCode, FsError, FsResult};

use super::places::{locate, located};
use super::verified;
use crate::calls::Backoff;
use crate::core::Core;
use crate::here::may_wait;

/// Rounds in which all replicas answer that they cannot, before the program gets an error. Each
/// round asks metad anew where the block is.
const ROUNDS: u32 = 3;

/// Rounds in vain after which it is told that a read waits: what takes so long is more than a restart.
const TOLD: u64 = 4;

/// What a range is read for.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub block: BlockId,
    pub offset: u64,
    /// Bytes asked for; fewer come where the block ends.
    pub len: u32,
    /// Bytes that must come.
    pub need: u32,
}

/// Reads until a replica answers. While any replica may still come back it waits for ever; when all
/// that there are have answered and none has the bytes intact, it is an error: CHECKSUM,
/// BLOCK_NOT_FOUND or whatever the last one said.
pub async fn read(core: &Arc<Core>, want: Want) -> FsResult<Bytes> {
    let mut backoff = Backoff::default();
    let (mut refusals, mut rounds) = (0, 0u64);
    loop {
        let location = locate(core, want.block).await?;
        let failure = match attempt(core, &location, want).await {
            Ok(bytes) => return Ok(bytes),
            Err(failure) => failure,
        };
        core.metrics.read_rounds_failed.inc();
        core.places.forget(want.block);
        if failure.hopeless {
            refusals += 1;
            if refusals >= ROUNDS {
                tracing::error!(block = %want.block, err = %failure.error, "no replica has the data");
                return Err(failure.error);
            }
        }
        rounds += 1;
        if rounds == TOLD {
            let replicas = location.replicas.len();
            tracing::warn!(
                block = %want.block, replicas, err = %failure.error,
                "waiting for a block server that has the data: none can be reached; \
                 `ozone admin safemode status` tells who is missing"
            );
        }
        backoff.pause().await;
    }
}

/// [`read`] on this thread, where it may wait: for a moment, and for one replica. `None` says nothing of
/// the data, which is to be read with [`read`] then.
pub fn read_here(core: &Core, want: Want) -> Option<Bytes> {
    if !may_wait() {
        return None;
    }
    let location = located(core, want.block)?;
    let replica = *preferred(core, &location).first()?;
    let reply = core.blockds.read_here(replica, &request(&location, want))?;
    core.metrics.reads.inc();
    core.metrics.reads_here.inc();
    checked(core, replica, want, reply).ok()
}

struct Failure {
    error: FsError,
    /// Every replica answered, and none can serve the bytes.
    hopeless: bool,
}

/// Asks the replicas one after the other, the next one when the last has failed or is slow.
async fn attempt(core: &Arc<Core>, location: &Location, want: Want) -> Result<Bytes, Failure> {
    let mut order = preferred(core, location).into_iter();
    let mut asked = FuturesUnordered::new();
    let mut failure = Failure {
        error: FsError::new(ErrorCode::NoServers),
        hopeless: !location.replicas.is_empty(),
    };
    let mut ask_next = true;
    loop {
        if ask_next {
            match order.next() {
                Some(replica) => asked.push(ask(core, location, replica, want)),
                None if asked.is_empty() => return Err(failure),
                None => {}
            }
        }
        let hedge = tokio::time::sleep(core.config.read_hedge);
        tokio::select! {
            Some(answer) = asked.next() => match answer {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    failure.hopeless &= final_word(&error);
                    // What says most about the data wins.
                    if failure.error.code() != ErrorCode::Checksum {
                        failure.error = error;
                    }
                    ask_next = true;
                }
            },
            () = hedge => {
                core.metrics.read_hedges.inc();
                ask_next = true;
            }
        }
    }
}

/// Whether a replica's answer will be the same next time.
fn final_word(error: &FsError) -> bool {
    matches!(
        error.code(),
        ErrorCode::Checksum | ErrorCode::BlockNotFound | ErrorCode::Io | ErrorCode::Corrupt
    )
}

/// The replicas in the order to be asked: healthy ones first, and a block's reads go to the same
/// one so that its disk reads ahead, different blocks' to different ones.
fn preferred<'l>(core: &Core, location: &'l Location) -> Vec<&'l Replica> {
    let mut order: Vec<&Replica> = location.replicas.iter().collect();
    if let (Some(block), false) = (location.block, order.is_empty()) {
        let turn = (block.local ^ block.container) as usize % order.len();
        order.rotate_left(turn);
    }
    let avoided = core.places.avoided();
    if !avoided.is_empty() {
        order.sort_by_key(|r| r.blockd_id().is_ok_and(|id| avoided.contains(&id)));
    }
    order
}

async fn ask(
    core: &Arc<Core>,
    location: &Location,
    replica: &Replica,
    want: Want,
) -> FsResult<Bytes> {
    core.metrics.reads.inc();
    let reply = core.blockds.read(replica, request(location, want)).await;
    checked(core, replica, want, reply)
}

fn request(location: &Location, want: Want) -> ReadRequest {
    let (block, token) = (location.block, location.token.clone());
    ReadRequest { block, offset: want.offset, length: want.len, token }
}

/// The bytes in a replica's answer, which tells of the replica as well.
fn checked(
    core: &Core,
    replica: &Replica,
    want: Want,
    reply: FsResult<ReadReply>,
) -> FsResult<Bytes> {
    let answer = reply
        .and_then(|reply| verified(want.block, reply, want.offset))
        .and_then(|bytes| enough(bytes, want));
    let blockd = replica.blockd_id().unwrap_or_default();
    match &answer {
        Ok(bytes) => {
            core.metrics.fetched.inc_by(bytes.len() as u64);
            core.places.absolve(&blockd);
        }
        Err(err) => {
            match err.code() {
                // If that is all replicas', who reads says so.
                ErrorCode::ConnectionLost | ErrorCode::Timeout | ErrorCode::Unavailable => {
                    tracing::debug!(%blockd, %err, "a block server cannot be reached");
                    core.places.blame(blockd);
                }
                _ => tracing::warn!(%blockd, %err, "a replica cannot be read"),
            }
        }
    }
    answer
}

fn enough(bytes: Bytes, want: Want) -> FsResult<Bytes> {
    if bytes.len() < want.need as usize {
        let text = format!("block {} is shorter here than its file says", want.block);
        return Err(FsError::with(ErrorCode::Corrupt, text));
    }
    Ok(bytes)
}
