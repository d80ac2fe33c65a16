//! Deleting all that is in a bucket.

use futures::stream::{self, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use ozone_client::{Client, DirEntry};
use ozone_types::{ErrorCode, FileKind, FileName, FsResult, InodeId};

/// Names that are looked at, at a time.
const PAGE: u32 = 1024;
/// Names that are deleted at a time.
const AT_ONCE: usize = 32;

/// A bar for so many names, on a terminal only.
pub fn progress(names: u64) -> ProgressBar {
    let bar = ProgressBar::new(names);
    // The template is a constant; were it wrong, the bar would look as it does by default.
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {bar:40} {human_pos}/{human_len} {eta} left")
    {
        bar.set_style(style);
    }
    bar.set_message("Deleting");
    bar
}

/// A directory to be emptied, and where it hangs; the root hangs nowhere.
struct Directory {
    inode: InodeId,
    hangs: Option<(InodeId, FileName)>,
}

/// Deletes everything below the client's root, the depths first. What others delete meanwhile is as
/// good; what they make is deleted as well.
pub async fn empty(client: &Client, progress: &ProgressBar) -> FsResult<()> {
    let mut stack = vec![Directory { inode: client.root(), hangs: None }];
    while let Some(dir) = stack.last() {
        let inode = dir.inode;
        let entries = match client.readdir(inode, 0, PAGE, false).await {
            Ok(page) => page.entries,
            Err(err) if is_gone(err.code()) => Vec::new(),
            Err(err) => return Err(err),
        };
        if entries.is_empty() {
            if let Some((parent, name)) = &dir.hangs {
                match client.rmdir(*parent, name).await {
                    Ok(()) => progress.inc(1),
                    Err(err) if is_gone(err.code()) => {}
                    // Something was made in it.
                    Err(err) if err.code() == ErrorCode::NotEmpty => continue,
                    Err(err) => return Err(err),
                }
            }
            stack.pop();
            continue;
        }
        let (dirs, files): (Vec<DirEntry>, Vec<DirEntry>) =
            entries.into_iter().partition(|entry| entry.kind == FileKind::Directory);
        delete_files(client, inode, files, progress).await?;
        stack.extend(
            dirs.into_iter()
                .map(|entry| Directory { inode: entry.inode, hangs: Some((inode, entry.name)) }),
        );
    }
    Ok(())
}

async fn delete_files(
    client: &Client,
    parent: InodeId,
    files: Vec<DirEntry>,
    progress: &ProgressBar,
) -> FsResult<()> {
    stream::iter(files.into_iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, async |entry: DirEntry| {
            match client.unlink(parent, &entry.name).await {
                Ok(()) => progress.inc(1),
                // Another one, or a directory now, which the next look finds.
                Err(err) if is_gone(err.code()) || err.code() == ErrorCode::IsDir => {}
                Err(err) => return Err(err),
            }
            Ok(())
        })
        .await
}

fn is_gone(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotFound | ErrorCode::Stale | ErrorCode::NotDir)
}
