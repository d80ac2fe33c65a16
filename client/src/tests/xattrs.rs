//! Extended attributes.

use ozone_types::limits::{XATTR_NAME_MAX, XATTR_SIZE_MAX};
use ozone_types::{ErrorCode, FsResult};

use super::*;
use crate::api::{SetXattr, XattrMode};

fn set_of(name: &'static [u8], value: &'static [u8], mode: XattrMode) -> SetXattr {
    let (name, value) = (Bytes::from_static(name), Bytes::from_static(value));
    SetXattr { name, value, mode, kill_sgid: false }
}

async fn set(client: &Client, inode: InodeId, name: &'static [u8], value: &'static [u8]) {
    client.setxattr(inode, set_of(name, value, XattrMode::Any)).await.unwrap();
}

fn code<T: std::fmt::Debug>(result: FsResult<T>) -> ErrorCode {
    result.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn attributes_are_set_listed_and_removed() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let inode = create(&client, "f").await.inode();
    let try_set = |name, value, mode| client.setxattr(inode, set_of(name, value, mode));
    assert_eq!(code(try_set(b"user.a", b"1", XattrMode::Replace).await), ErrorCode::NoData);
    try_set(b"user.a", b"1", XattrMode::Create).await.unwrap();
    assert_eq!(code(try_set(b"user.a", b"2", XattrMode::Create).await), ErrorCode::Exists);
    try_set(b"user.a", b"2", XattrMode::Replace).await.unwrap();
    try_set(b"user.b", b"", XattrMode::Any).await.unwrap();
    assert_eq!(client.getxattr(inode, b"user.a").await.unwrap(), b"2"[..]);
    assert_eq!(client.getxattr(inode, b"user.b").await.unwrap(), b""[..]);
    let mut names = client.listxattr(inode).await.unwrap();
    names.sort();
    assert_eq!(names, [&b"user.a"[..], b"user.b"]);
    client.removexattr(inode, b"user.a").await.unwrap();
    assert_eq!(code(client.removexattr(inode, b"user.a").await), ErrorCode::NoData);
    assert_eq!(code(client.getxattr(inode, b"user.a").await), ErrorCode::NoData);
    assert_eq!(client.listxattr(inode).await.unwrap(), [&b"user.b"[..]]);
}

#[tokio::test(start_paused = true)]
async fn what_metad_would_refuse_is_not_sent() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let inode = create(&client, "f").await.inode();
    let commits = cluster.metad.commits();
    let long = |len: usize| [&b"user."[..], &[b'x'; 300]].concat()[..len].to_vec();
    let set = |name: &[u8], len| {
        let (name, value) = (Bytes::copy_from_slice(name), vec![1; len].into());
        client.setxattr(inode, SetXattr { name, value, mode: XattrMode::Any, kill_sgid: false })
    };
    for (name, expected) in [
        (long(0), ErrorCode::Invalid),
        (long(XATTR_NAME_MAX + 1), ErrorCode::Range),
        (b"system.other".to_vec(), ErrorCode::Unsupported),
    ] {
        assert_eq!(code(set(&name, 1).await), expected);
        assert_eq!(code(client.getxattr(inode, &name).await), expected, "though it has none");
        assert_eq!(code(client.removexattr(inode, &name).await), expected);
    }
    assert_eq!(code(set(b"user.a", XATTR_SIZE_MAX + 1).await), ErrorCode::Range);
    assert_eq!(cluster.metad.commits(), commits);
    let longest = long(XATTR_NAME_MAX);
    set(&longest, XATTR_SIZE_MAX).await.unwrap();
    assert_eq!(client.getxattr(inode, &longest).await.unwrap(), vec![1; XATTR_SIZE_MAX]);
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_and_knows_of_none_asks_nobody() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let inode = create(&client, "f").await.inode();
    let reads = || cluster.metad.xattr_reads();
    assert_eq!(code(client.getxattr(inode, b"user.a").await), ErrorCode::NoData);
    assert!(client.listxattr(inode).await.unwrap().is_empty());
    assert_eq!(reads(), 0);
    set(&client, inode, b"user.a", b"1").await;
    assert!(client.getattr(inode).await.unwrap().xattrs);
    assert_eq!(client.getxattr(inode, b"user.a").await.unwrap(), b"1"[..]);
    assert_eq!(client.listxattr(inode).await.unwrap().len(), 1);
    assert_eq!(reads(), 2);
    client.removexattr(inode, b"user.a").await.unwrap();
    assert_eq!(code(client.getxattr(inode, b"user.a").await), ErrorCode::NoData);
    assert_eq!(reads(), 2, "the reply told that none is left");

    let other = cluster.client().await;
    set(&other, inode, b"user.b", b"2").await;
    assert_eq!(client.getxattr(inode, b"user.b").await.unwrap(), b"2"[..]);
    other.removexattr(inode, b"user.b").await.unwrap();
    assert!(client.listxattr(inode).await.unwrap().is_empty());
    assert_eq!(reads(), 4, "not alone: each question is asked");
}

#[tokio::test(start_paused = true)]
async fn an_attribute_comes_behind_the_data_in_one_batch() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    let commits = cluster.metad.commits();
    set(&client, file.inode(), b"user.a", b"1").await;
    assert_eq!(cluster.metad.commits(), commits + 1);
    assert_eq!(cluster.metad.extents_of(file.inode().0), 1);
    assert_eq!(client.core().budget.dirty(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_takes_the_capability_at_once() {
    let cluster = Cluster::new();
    let (client, other) = (cluster.client().await, cluster.client().await);
    let file = create(&client, "f").await;
    let inode = file.inode();
    set(&client, inode, b"security.capability", b"cap").await;
    set(&client, inode, b"user.a", b"1").await;
    write(&client, &file, 0, b"by root").await;
    assert_eq!(client.getxattr(inode, b"security.capability").await.unwrap(), b"cap"[..]);
    client.write(&file, 0, Bytes::from_static(b"by others"), true).await.unwrap();
    assert_eq!(code(client.getxattr(inode, b"security.capability").await), ErrorCode::NoData);
    assert_eq!(client.listxattr(inode).await.unwrap(), [&b"user.a"[..]]);
    assert!(client.core().budget.dirty() > 0, "nothing has been stored for that");
    assert_eq!(code(other.getxattr(inode, b"security.capability").await), ErrorCode::NoData);
    set(&client, inode, b"security.capability", b"new").await;
    assert_eq!(client.getxattr(inode, b"security.capability").await.unwrap(), b"new"[..]);
}

#[tokio::test(start_paused = true)]
async fn the_umask_goes_to_metad() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let node = NewNode { mode: 0o666, umask: 0o027, ..NewNode::default() };
    let attr = client.create(client.root(), &name("f"), node).await.unwrap();
    assert_eq!(attr.mode, 0o640);
}
