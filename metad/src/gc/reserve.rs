//! Tops up the reservations of block ids before they run out.

use std::time::Duration;

use ozone_types::FsResult;

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::blocks::refill_low;

#[derive(Debug)]
pub struct Reserve;

impl Worker for Reserve {
    const NAME: &'static str = "reserve_blocks";
    const INTERVAL: Duration = Duration::from_secs(1);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.reserve
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        refill_low(&place.node, &place.leader).await?;
        Ok((Progress::Idle, 0))
    }
}
