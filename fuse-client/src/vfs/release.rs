use super::{Backend, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    /// The last descriptor and mapping of an open file have gone. What was written is on its way; the locks
    /// that are its own go.
    pub fn release(&self, handle: Handle) {
        if let Some(file) = self.files.remove(handle) {
            self.client.release(file.open.clone());
            self.released.notify_waiters();
        }
    }
}
