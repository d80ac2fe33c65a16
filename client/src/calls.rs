//! The driver of requests that may be repeated: waits for metad as long as it takes, and goes on in
//! a new session when the old one has ended.

use std::time::Duration;

use ozone_types::{ErrorCode, FsError, FsResult, RetryClass};

use crate::session::{Live, Session};

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A pause that doubles.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Backoff(BACKOFF_FIRST)
    }
}

impl Backoff {
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }
}

/// Whether the request may simply be sent again.
pub fn repeatable(err: &FsError) -> bool {
    match err.retry_class() {
        RetryClass::Again | RetryClass::MaybeDone => true,
        RetryClass::Final | RetryClass::Reopen => false,
    }
}

/// Calls `f` under the current session until it is answered. Errors are final ones. Dropping the
/// future abandons the request.
pub async fn call<T, F, Fut>(session: &Session, f: F) -> FsResult<T>
where
    F: Fn(Live) -> Fut,
    Fut: Future<Output = FsResult<T>>,
{
    let mut backoff = Backoff::default();
    loop {
        let live = session.current().await;
        match f(live).await {
            Ok(reply) => return Ok(reply),
            Err(err) if err.code() == ErrorCode::SessionEnded => session.report_ended(live.id),
            Err(err) if repeatable(&err) => tracing::trace!(%err, "trying again"),
            Err(err) => return Err(err),
        }
        backoff.pause().await;
    }
}
