//! How long the kernel may keep what it was told.
//!
//! While nobody else can change a bucket its client lets the kernel answer for a moment by itself
//! ([`ozone_client::Client::keep`]). What this mount changes the kernel sees: it asks for attributes
//! again after every change that went through it.

use std::time::Duration;

use ozone_types::{Attr, FileKind};

use super::{Backend, Vfs};

const SETUID_SETGID: u32 = 0o6000;

impl<B: Backend> Vfs<B> {
    /// Of attributes, and of the name under which they were looked up. A write takes setuid and setgid
    /// from a file behind the kernel's back, so it must not believe in them.
    pub fn keep(&self, attr: &Attr) -> Duration {
        match attr.kind != FileKind::Directory && attr.mode & SETUID_SETGID != 0 {
            true => Duration::ZERO,
            false => self.client.keep(attr),
        }
    }
}
