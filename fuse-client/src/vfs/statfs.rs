use ozone_client::StatFs;
use ozone_types::FsResult;

use super::{Backend, Vfs};

impl<B: Backend> Vfs<B> {
    /// True numbers, or the last known ones when no server answers in time.
    pub async fn statfs(&self) -> FsResult<StatFs> {
        self.last_known.statfs(&self.client).await
    }
}
