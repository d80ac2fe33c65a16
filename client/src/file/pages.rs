//! Pages that the kernel has of a file without a lease.
//!
//! A page that was just read or written stays in the kernel until it is told to drop it, which it can only
//! be when the request is answered. Meanwhile nobody else may change the file: metad is told before the data
//! is looked up, and when the pages are gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ozone_proto::metad::PagesRequest;
use ozone_types::{ErrorCode, FsResult};

use super::File;
use super::handle::{Held, OpenFile};
use super::open::pin;
use crate::calls::call;
use crate::core::Core;

/// Sessions that may end one after the other while one question is asked.
const ATTEMPTS: usize = 3;

/// Some pages of a file, from before they are read or written until they are in no cache any more: then
/// it is to be dropped. The file stays pinned so long.
pub struct ShownPages {
    core: Arc<Core>,
    held: Option<Held>,
    /// Of this client, in whatever session.
    number: u64,
}

/// Waits until nobody else is changing the file. Errors: those of [`pin`].
pub async fn show(core: &Arc<Core>, open: &OpenFile) -> FsResult<ShownPages> {
    let held = Some(Held::new(core, open.inode(), false));
    let number = core.pages_shown.fetch_add(1, Ordering::Relaxed);
    // From here on, so that a request whose answer nobody waits for is taken back.
    let shown = ShownPages { core: core.clone(), held, number };
    for _ in 0..ATTEMPTS {
        pin(core, &open.file, false, false).await?;
        let answered = call(&core.session, |live| {
            let request = request(core, live.id, &open.file, number);
            async move { core.metad.show_pages(request).await }
        });
        match answered.await {
            // The session has ended in between, and the pin with it.
            Err(err) if err.code() == ErrorCode::BadHandle => {}
            // An older metad does not know of it; then nobody waits for the pages.
            Err(err) if err.code() == ErrorCode::Protocol => break,
            answer => return answer.map(|_| shown),
        }
    }
    Ok(shown)
}

fn request(core: &Core, session: u64, file: &File, number: u64) -> PagesRequest {
    PagesRequest { session, bucket: core.bucket().0, inode: file.inode.0, number }
}

impl Drop for ShownPages {
    fn drop(&mut self) {
        let (core, number) = (self.core.clone(), self.number);
        let Some(held) = self.held.take() else { return };
        self.core.spawn(async move {
            let answered = call(&core.session, |live| {
                let request = request(&core, live.id, held.file(), number);
                let core = core.clone();
                async move { core.metad.drop_pages(request).await }
            });
            if let Err(err) = answered.await {
                tracing::debug!(inode = %held.file().inode, %err, "metad was not told of dropped pages");
            }
        });
    }
}

impl std::fmt::Debug for ShownPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShownPages").field("number", &self.number).finish_non_exhaustive()
    }
}
