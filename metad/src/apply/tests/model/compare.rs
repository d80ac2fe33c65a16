//! What the tables hold and the model says.

use std::collections::BTreeMap;

use ozone_proto::metad::Attr;
use ozone_raftkit::store::View;
use ozone_testkit::model::Model;
use ozone_types::{Attr as TypedAttr, BlockId, BucketId, InodeId};

use super::refusal;
use super::work::{BAD_NAMES, XATTR_NAMES};
use crate::ops;

/// The same but for the version, which only has to grow.
pub(super) fn assert_same(real: &Attr, model: &TypedAttr) {
    let mut real = TypedAttr::try_from(*real).unwrap();
    real.version = model.version;
    assert_eq!(&real, model);
}

/// What changed has a greater version.
pub(super) fn assert_version(before: Option<&Attr>, now: &Attr) {
    let Some(before) = before else { return };
    let same = Attr { version: before.version, ..*now } == *before;
    let grown = now.version > before.version;
    assert!(grown || (same && now.version == before.version), "{before:?} {now:?}");
}

pub(super) fn compare_content(
    view: &View<'_>,
    bucket: BucketId,
    inode: InodeId,
    model: &Model,
    blocks: &BTreeMap<BlockId, Vec<u8>>,
) {
    match model.readlink(inode) {
        Ok(target) => assert_eq!(ops::readlink(view, bucket, inode).unwrap(), target),
        Err(code) => assert_eq!(refusal(ops::readlink(view, bucket, inode)), Some(code)),
    }
    match model.readdir(inode) {
        Ok(_) => compare_listing(view, bucket, inode, model),
        Err(code) => {
            assert_eq!(refusal(ops::readdir(view, bucket, inode, 0, 0, false)), Some(code));
        }
    }
    let huge = model.getattr(inode).is_ok_and(|attr| attr.size > 1 << 20);
    match if huge { Ok(Vec::new()) } else { model.read(inode) } {
        Ok(expected) => {
            let mut data = vec![0; expected.len()];
            let mut at = 0;
            loop {
                let page = ops::extents(view, bucket, inode, at, 2).unwrap();
                for e in &page.extents {
                    let block = &blocks[&e.block_id().unwrap()];
                    let bytes = &block[e.block_offset as usize..][..e.length as usize];
                    if !huge {
                        data[e.offset as usize..][..bytes.len()].copy_from_slice(bytes);
                    }
                    at = e.offset + e.length;
                }
                if page.end {
                    break;
                }
            }
            assert!(data == expected, "the bytes of {inode:?} differ");
        }
        Err(code) => assert_eq!(refusal(ops::extents(view, bucket, inode, 0, 0)), Some(code)),
    }
}

fn compare_listing(view: &View<'_>, bucket: BucketId, inode: InodeId, model: &Model) {
    let mut listed = model.readdir(inode).unwrap().into_iter();
    let mut cookie = 0;
    loop {
        let page = ops::readdir(view, bucket, inode, cookie, 2, true).unwrap();
        assert_eq!(page.parent, model.parent(inode).unwrap().0);
        for entry in page.entries {
            let expected = listed.next().expect("a name that the model does not have");
            assert_eq!((entry.inode, entry.kind), (expected.inode.0, expected.kind.raw()));
            assert_eq!(entry.name, expected.name);
            assert!(entry.cookie > cookie && entry.cookie <= page.last_cookie);
            cookie = entry.cookie;
            let attr = entry.attr.unwrap();
            assert_same(&attr, &model.getattr(expected.inode).unwrap());
            assert_eq!(ops::lookup(view, bucket, inode, &entry.name).unwrap(), attr);
        }
        if page.end {
            break;
        }
    }
    assert_eq!(listed.next(), None);
    for name in BAD_NAMES.into_iter().chain([&b"none"[..]]) {
        let expected = model.lookup(inode, name).unwrap_err();
        assert_eq!(refusal(ops::lookup(view, bucket, inode, name)), Some(expected));
    }
}

pub(super) fn compare_xattrs(view: &View<'_>, bucket: BucketId, inode: InodeId, model: &Model) {
    match model.listxattr(inode) {
        Ok(names) => assert_eq!(ops::listxattr(view, bucket, inode).unwrap(), names),
        Err(code) => assert_eq!(refusal(ops::listxattr(view, bucket, inode)), Some(code)),
    }
    for name in XATTR_NAMES {
        let real = ops::getxattr(view, bucket, inode, name);
        match model.getxattr(inode, name) {
            Ok(value) => assert!(real.unwrap() == value, "{name:?} of {inode:?} differs"),
            Err(code) => assert_eq!(refusal(real), Some(code)),
        }
    }
}
