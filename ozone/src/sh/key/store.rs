//! Making a key's content in one step: it is written under a name of its own, and gets the key's name,
//! in place of whatever had it, when all of it is stored.

use std::sync::Arc;
use std::time::Duration;

use ozone_client::{Client, OpenFile, RenameFlags};
use ozone_types::{ErrorCode, FileKind, FileName, FsError, FsResult, InodeId};
use tokio::signal::unix::{SignalKind, signal};

use super::path::{self, KeyPath};
use crate::{Failure, Outcome};

/// How long to try to take an unfinished file away.
const CLEANUP: Duration = Duration::from_secs(5);
/// How often a directory is made again that others take away.
const ATTEMPTS: usize = 16;

/// Makes or replaces a key by what `fill` writes. It is durable when this returns; until then the key is
/// what it was. Errors: NOT_A_FILE for a key that is a directory; FILE_ALREADY_EXISTS; those of `fill`.
pub async fn store(
    client: &Client,
    key: &KeyPath,
    fill: impl AsyncFnOnce(&OpenFile) -> Outcome,
) -> Outcome {
    let (parent, temporary, file) = begin(client, key).await?;
    let work = async {
        fill(&file).await?;
        Ok(client.fsync(&file).await?)
    };
    let mut result = tokio::select! {
        biased;
        interrupted = interrupt() => Err(interrupted),
        result = work => result,
    };
    if result.is_ok() {
        result = name(client, key, parent, &temporary).await;
    }
    client.release(file);
    if result.is_err()
        && tokio::time::timeout(CLEANUP, discard(client, key, parent, &temporary)).await.is_err()
    {
        eprintln!("{} may be left behind", String::from_utf8_lossy(temporary.as_bytes()));
    }
    result
}

/// Gives the key its new content. An interruption waits for the answer: who is told of one finds the key as it
/// was, unless it says otherwise.
async fn name(client: &Client, key: &KeyPath, parent: InodeId, temporary: &FileName) -> Outcome {
    let flags = RenameFlags::default();
    let mut named = std::pin::pin!(client.rename(parent, temporary, parent, key.name(), flags));
    let named = tokio::select! {
        biased;
        named = &mut named => named,
        interrupted = interrupt() => match tokio::time::timeout(CLEANUP, &mut named).await {
            Ok(named) => named,
            Err(_) => {
                eprintln!("metad does not answer: the key may have its new content");
                return Err(interrupted);
            }
        },
    };
    named.map_err(|err| match err.code() {
        ErrorCode::IsDir => not_a_file(key).into(),
        _ => Failure::from(err),
    })
}

/// Takes the unfinished file away, and what was made to put it in if the key is flat.
async fn discard(client: &Client, key: &KeyPath, parent: InodeId, temporary: &FileName) {
    let gone = match client.unlink(parent, temporary).await {
        Ok(()) => key.tidy(client).await,
        Err(err) if path::is_missing(err.code()) => Ok(()),
        Err(err) => Err(err),
    };
    if let Err(err) = gone {
        eprintln!("{} is left behind: {err}", String::from_utf8_lossy(temporary.as_bytes()));
    }
}

/// An empty file beside the key, under a name of its own; and the directory they are in.
async fn begin(client: &Client, key: &KeyPath) -> FsResult<(InodeId, FileName, Arc<OpenFile>)> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        match begin_once(client, key).await {
            // Somebody has just taken the directory away.
            Err(err) if path::is_missing(err.code()) && attempts > 0 => {}
            answer => return answer,
        }
    }
}

async fn begin_once(
    client: &Client,
    key: &KeyPath,
) -> FsResult<(InodeId, FileName, Arc<OpenFile>)> {
    let parent = key.make_parent(client).await?;
    refuse_directory(client, parent, key).await?;
    let (name, file) = create(client, parent).await?;
    Ok((parent, name, file))
}

/// Before anything is sent.
async fn refuse_directory(client: &Client, parent: InodeId, key: &KeyPath) -> FsResult<()> {
    match client.lookup(parent, key.name()).await {
        Ok(attr) if attr.kind == FileKind::Directory => Err(not_a_file(key)),
        Err(err) if err.code() != ErrorCode::NotFound => Err(err),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn not_a_file(key: &KeyPath) -> FsError {
    FsError::with(ErrorCode::NotAFile, format!("Key:{key} is a directory"))
}

/// A file under a name that nobody uses.
async fn create(client: &Client, parent: InodeId) -> FsResult<(FileName, Arc<OpenFile>)> {
    loop {
        let name = format!(".ozone-put-{:016x}", ozone_platform::random::u64());
        let name = FileName::new(name.as_bytes())?;
        match client.create_open(parent, &name, path::new_file()).await {
            Ok((_, file)) => return Ok((name, file)),
            Err(err) if err.code() == ErrorCode::Exists => {}
            Err(err) => return Err(err),
        }
    }
}

/// Resolves when the user, or the machine, wants the command to end.
async fn interrupt() -> Failure {
    let listen = |kind| signal(kind);
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (listen(SignalKind::interrupt()), listen(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process at once.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Failure::new(130, "interrupted"),
        _ = terminate.recv() => Failure::new(143, "terminated"),
    }
}
