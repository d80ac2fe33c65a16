//! `token_key`: the cluster's secret, kept so that a restart needs no containerd.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ozone_platform::std_disk;
use ozone_rpc::token::TokenKey;

const NAME: &str = "token_key";
const TMP: &str = "token_key.tmp";

/// The key, if it is known. `InvalidData` if the file does not hold one.
pub fn read(dir: &Path) -> io::Result<Option<TokenKey>> {
    let path = dir.join(NAME);
    match std::fs::read(&path) {
        Ok(bytes) => TokenKey::from_slice(&bytes).map(Some).map_err(|err| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {err}", path.display()))
        }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(io::Error::new(err.kind(), format!("{}: {err}", path.display()))),
    }
}

/// Replaces the key, durably, unless it is the same. Only the owner may read it.
pub fn write(dir: &Path, key: &TokenKey) -> io::Result<()> {
    if let Ok(Some(known)) = read(dir)
        && known.as_bytes() == key.as_bytes()
    {
        return Ok(());
    }
    let tmp = dir.join(TMP);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
    file.write_all(key.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&tmp, dir.join(NAME))?;
    std_disk().sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        for byte in [1, 2, 2] {
            write(dir.path(), &TokenKey::new([byte; 32])).unwrap();
            assert_eq!(read(dir.path()).unwrap().unwrap().as_bytes(), &[byte; 32]);
        }
        std::fs::write(dir.path().join(NAME), b"short").unwrap();
        assert_eq!(read(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        write(dir.path(), &TokenKey::new([3; 32])).unwrap();
        assert!(read(dir.path()).unwrap().is_some());
    }
}
