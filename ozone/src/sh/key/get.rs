//! `key get`, `key cat`: a key's bytes, to a local file or to standard output.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use ozone_client::{Client, OpenMode};

use super::PIECE;
use super::path::{KeyPath, local};
use crate::cluster_client::MetadAddress;
use crate::sh::address::KeyAddress;
use crate::sh::cannot_print;
use crate::sh::session::{self, Use};
use crate::{Failure, Outcome};

pub async fn get(metad: &MetadAddress, address: &KeyAddress, file: &Path, force: bool) -> Outcome {
    let into = file.is_dir();
    let target = if into { file.join(local(&address.key)?) } else { file.to_owned() };
    if target.exists() && !force {
        let why = format!(
            "{} exists. Download would overwrite an existing file. Aborting.",
            target.display()
        );
        return Err(Failure::new(255, why));
    }
    let cannot_write = |err: io::Error| Failure::new(255, format!("{}: {err}", target.display()));
    session::with(metad, &address.bucket, Use::Read, async |client| {
        // The key is found before anything is made here.
        let key = KeyPath::new(client, &address.key)?;
        let attr = key.find_file(client).await?;
        let (mut out, made) = create(&target, into).map_err(cannot_write)?;
        let result = download(client, attr.inode, &mut out, cannot_write).await;
        if result.is_err() && made {
            // What is left is no key; the error that is reported is the download's.
            let _ = std::fs::remove_file(&target);
        }
        result
    })
    .await
}

/// The local file, emptied, with the directories on its way if `into` one; and whether it was made.
fn create(target: &Path, into: bool) -> io::Result<(File, bool)> {
    if let Some(parent) = target.parent().filter(|_| into) {
        std::fs::create_dir_all(parent)?;
    }
    match File::options().write(true).create_new(true).open(target) {
        Ok(file) => Ok((file, true)),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            Ok((File::create(target)?, false))
        }
        Err(err) => Err(err),
    }
}

pub async fn cat(metad: &MetadAddress, address: &KeyAddress) -> Outcome {
    session::with(metad, &address.bucket, Use::Read, async |client| {
        let key = KeyPath::new(client, &address.key)?;
        let attr = key.find_file(client).await?;
        let mut out = io::stdout().lock();
        download(client, attr.inode, &mut out, cannot_print).await
    })
    .await
}

/// `failed` says what an error of `out` means.
async fn download(
    client: &Client,
    inode: ozone_types::InodeId,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> Failure,
) -> Outcome {
    let mode = OpenMode { read: true, noatime: true, ..OpenMode::default() };
    let file = client.open(inode, mode).await?;
    let mut offset = 0;
    loop {
        let pieces = client.read(&file, offset, PIECE).await?;
        let before = offset;
        for piece in pieces {
            out.write_all(&piece).map_err(&failed)?;
            offset += piece.len() as u64;
        }
        if offset == before {
            client.release(file);
            return out.flush().map_err(&failed);
        }
    }
}
