use bytes::{Bytes, BytesMut};
use ozone_types::FsResult;

use super::{Backend, Handle, Vfs};

/// What a read found: fewer bytes than asked for only at the end of the file.
#[derive(Debug, Default)]
pub struct Data(Vec<Bytes>);

impl Data {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// The bytes in one piece. Copies only where they lie in several blocks or cache chunks.
    pub fn contiguous(mut self) -> Bytes {
        if self.0.len() <= 1 {
            return self.0.pop().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(self.0.iter().map(Bytes::len).sum());
        self.0.iter().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }
}

impl<B: Backend> Vfs<B> {
    /// After the reply call [`Vfs::replied`].
    pub async fn read(&self, handle: Handle, offset: u64, len: u32) -> FsResult<Data> {
        let file = self.files.get(handle)?;
        self.client.read(&file.open, offset, len as usize).await.map(Data)
    }

    /// The kernel keeps the pages of what was just read or written. If the file's lease has been
    /// withdrawn since it was opened, nobody would tell it when they change, so they go at once. Not
    /// before the reply: they are locked until then.
    pub fn replied(&self, handle: Handle, offset: u64, len: u32) {
        if let Ok(file) = self.files.get(handle)
            && file.caches_unleased()
        {
            self.forget_pages_later(file.inode(), offset, len.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_in_order() {
        assert!(Data::default().contiguous().is_empty());
        let one = Bytes::from_static(b"abc");
        let joined = Data(vec![one.clone()]).contiguous();
        assert_eq!(joined.as_ptr(), one.as_ptr(), "a single piece is not copied");
        let pieces = vec![one, Bytes::new(), Bytes::from_static(b"de")];
        assert_eq!(&Data(pieces).contiguous()[..], b"abcde");
    }
}
