//! The end of this host's dead sessions, where no session is opened that could tell of them.

use std::time::Duration;

use ozone_proto::metad::{Goodbye, Hello, SessionUp, session_down, session_up};
use ozone_types::{ErrorCode, FsError, FsResult};
use tokio_stream::StreamExt;

use super::SessionDir;
use super::stream::PROTOCOL_VERSION;
use crate::metad::Metad;

/// How long metad may take to welcome a session, or to end it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells metad which sessions of `cluster` are those of dead processes, by one that says no more and ends.
/// `hello` says who tells it. Errors: metad's; the next one who looks finds them again.
pub async fn end_dead(
    metad: &dyn Metad,
    dir: &SessionDir,
    cluster: &str,
    hello: Hello,
) -> FsResult<()> {
    let dead = dir.dead(cluster);
    if dead.is_empty() {
        return Ok(());
    }
    let protocol_version = PROTOCOL_VERSION;
    let hello = Hello { supersedes: dead.clone(), protocol_version, ..hello };
    let talk = async {
        let mut stream = metad.session(hello).await?;
        let lost = || FsError::with(ErrorCode::ConnectionLost, "metad did not welcome the session");
        let first = stream.down.next().await.ok_or_else(lost)??;
        let Some(session_down::Message::Welcome(_)) = first.message else { return Err(lost()) };
        dir.forget(cluster, &dead);
        let goodbye = SessionUp { message: Some(session_up::Message::Goodbye(Goodbye {})) };
        // If it is not heard, the session ends by its lease, and holds nothing till then.
        let _ = stream.up.send(goodbye).await;
        while let Some(Ok(_)) = stream.down.next().await {}
        Ok(())
    };
    let late = |_| FsError::new(ErrorCode::Timeout);
    tokio::time::timeout(PATIENCE, talk).await.map_err(late)?
}
