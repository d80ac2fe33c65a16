use bytes::{Bytes, BytesMut};
use ozone_types::{FsResult, InodeId};

use super::handles::File;
use super::{Backend, Handle, OpenedFile, Vfs};

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

/// An answer, and the pages that the kernel has without a lease when it has been told it.
#[derive(Debug)]
pub struct WithPages<T, P> {
    pub answer: T,
    pub pages: Option<P>,
}

impl<B: Backend> Vfs<B> {
    /// `cached`: the kernel reads pages for its cache, for whomever, and not for one read(2) alone; so it
    /// does for mappings, also through a handle that is not cached otherwise. After the reply call
    /// [`Vfs::replied`].
    pub async fn read(
        &self,
        handle: Handle,
        offset: u64,
        len: u32,
        cached: bool,
    ) -> FsResult<WithPages<Data, B::Pages>> {
        let file = self.files.get(handle)?;
        if cached {
            file.note_cached();
        }
        let pages = self.show_pages(&file, cached).await?;
        let answer = self.client.read(&file.open, offset, len as usize).await.map(Data)?;
        Ok(WithPages { answer, pages })
    }

    /// Before the kernel is given pages, or has written some: without a lease nobody would tell it when they
    /// change, so whoever wants to change them must wait until they are dropped.
    pub(super) async fn show_pages(
        &self,
        file: &File<B::File>,
        cached: bool,
    ) -> FsResult<Option<B::Pages>> {
        match cached && !file.open.cacheable() {
            true => self.client.show_pages(&file.open).await.map(Some),
            false => Ok(None),
        }
    }

    /// The kernel keeps the pages of what it has just read or written. What it has no lease on goes at
    /// once; but not before the reply: until then they are locked. The last close may have come since.
    pub fn replied(
        &self,
        inode: InodeId,
        handle: Handle,
        (offset, len): (u64, u32),
        cached: bool,
        pages: Option<B::Pages>,
    ) {
        let Some(cache) = self.page_cache.get().cloned() else { return };
        let leased = || self.files.get(handle).is_ok_and(|file| file.open.cacheable());
        if pages.is_some() || (cached && !leased()) {
            tokio::task::spawn_blocking(move || {
                cache.forget_range(inode, offset, len.into());
                drop(pages);
            });
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
