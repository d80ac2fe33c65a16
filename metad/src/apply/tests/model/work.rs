//! The random work: what is done, to which inodes, under which names.

use proptest::prelude::*;

/// Which inode: a directory or file that is there, or any that ever was.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    Dir(u8),
    File(u8),
    Any(u8),
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Create {
        at: (Pick, u8),
        mode: u32,
        umask: u32,
        uid: u32,
        gid: u32,
    },
    Mkdir {
        at: (Pick, u8),
        mode: u32,
        umask: u32,
        gid: u32,
    },
    Symlink {
        at: (Pick, u8),
        length: usize,
    },
    Link {
        inode: Pick,
        at: (Pick, u8),
    },
    Unlink {
        at: (Pick, u8),
    },
    Rmdir {
        at: (Pick, u8),
    },
    Rename {
        from: (Pick, u8),
        to: (Pick, u8),
        mode: u8,
    },
    Setattr {
        inode: Pick,
        size: Option<u64>,
        mode: Option<u32>,
        owner: Option<u32>,
        times: u8,
    },
    Write {
        inode: Pick,
        runs: Vec<(u64, u64)>,
        hole: u64,
        kill: bool,
        scatter: bool,
        append: bool,
        credit: u64,
    },
    Punch {
        inode: Pick,
        offset: u64,
        length: u64,
        size: u64,
        kill: bool,
    },
    Clone {
        from: Pick,
        to: Pick,
        from_offset: u64,
        to_offset: u64,
        length: u64,
        kill: bool,
    },
    SetXattr {
        inode: Pick,
        name: u8,
        value: Value,
        flags: u8,
    },
    RemoveXattr {
        inode: Pick,
        name: u8,
    },
}

/// An attribute's value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    Zeros(usize),
    /// Entries of an ACL: tag, permissions, id.
    Acl(Vec<(u16, u16, u32)>),
}

impl Value {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Zeros(length) => vec![0; *length],
            Value::Acl(entries) => crate::acl::tests::value(entries),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Batch {
        steps: Vec<Step>,
        repeat: bool,
    },
    /// Nobody has the orphans open any more.
    Purge {
        max_rows: u32,
    },
    Checkpoint,
    Crash {
        seed: u64,
    },
    NewBlock,
    /// Quotas of so much more than is in use now, or none.
    Quotas {
        bytes: Option<i64>,
        names: Option<i64>,
    },
    /// Room is reserved, by another session too.
    Reserve {
        other: bool,
        bytes: u64,
        least: u64,
        release: u64,
    },
    /// The other session ends.
    EndOther,
}

pub(super) const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", &[b'l'; 255]];
pub(super) const BAD_NAMES: [&[u8]; 5] = [b"", b".", b"..", b"x/y", &[b'l'; 256]];

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";
/// Good ones, the two ACLs first, and bad ones.
pub(super) const XATTR_NAMES: [&[u8]; 12] = [
    ACCESS,
    DEFAULT,
    b"security.capability",
    b"user.a",
    b"user.b",
    b"trusted.x",
    &long_xattr_name::<255>(),
    &long_xattr_name::<256>(),
    b"",
    b"user.",
    b"user.a\0",
    b"system.other",
];

const fn long_xattr_name<const N: usize>() -> [u8; N] {
    let mut name = [b'.'; N];
    [name[0], name[1], name[2], name[3]] = *b"user";
    name
}

pub(super) fn xattr_name(n: u8) -> &'static [u8] {
    XATTR_NAMES[n as usize % XATTR_NAMES.len()]
}

pub(super) fn name(n: u8) -> &'static [u8] {
    match n {
        240.. => BAD_NAMES[n as usize % BAD_NAMES.len()],
        _ => NAMES[n as usize % NAMES.len()],
    }
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![9 => any::<u8>().prop_map(Pick::Dir), 1 => any::<u8>().prop_map(Pick::Any)]
}

fn file_pick() -> impl Strategy<Value = Pick> {
    prop_oneof![4 => any::<u8>().prop_map(Pick::File), 1 => any::<u8>().prop_map(Pick::Any)]
}

fn place() -> impl Strategy<Value = (Pick, u8)> {
    (pick(), any::<u8>())
}

/// Bits beyond the permissions mean nothing.
fn umask() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(0o022), 0..0o10000u32]
}

fn mode() -> impl Strategy<Value = u32> {
    let kind = prop_oneof![
        16 => Just(0o100000u32), 1 => Just(0), 1 => Just(0o010000), 1 => Just(0o020000),
        1 => Just(0o040000), 1 => Just(0o060000), 1 => Just(0o120000), 1 => Just(0o140000),
        1 => Just(0o030000),
    ];
    (kind, 0..0o10000u32).prop_map(|(kind, mode)| kind | mode)
}

/// Mostly an ACL that Linux takes for one.
fn acl() -> impl Strategy<Value = Value> {
    let named = |most| prop::collection::vec((0..4u32, 0..8u16), 0..most);
    let perms = prop::array::uniform4(0..8u16);
    let damage = prop_oneof![6 => Just(None), 1 => (any::<u8>(), 0..3u8).prop_map(Some)];
    (perms, named(3), named(2), prop::bool::weighted(0.8), damage).prop_map(
        |([owner, group, mask, other], users, groups, masked, damage)| {
            const NOBODY: u32 = u32::MAX;
            let mut entries = vec![(1, owner, NOBODY)];
            entries.extend(users.into_iter().map(|(id, perm)| (2, perm, id)));
            entries.push((4, group, NOBODY));
            entries.extend(groups.into_iter().map(|(id, perm)| (8, perm, id)));
            if masked {
                entries.push((16, mask, NOBODY));
            }
            entries.push((32, other, NOBODY));
            if let Some((at, how)) = damage {
                let at = at as usize % entries.len();
                match how {
                    0 => drop(entries.remove(at)),
                    1 => entries[at].1 |= 8,
                    _ => entries.swap(at, 0),
                }
            }
            Value::Acl(entries)
        },
    )
}

fn xattr_step() -> impl Strategy<Value = Step> {
    let any_pick = || prop_oneof![pick(), file_pick()];
    let bytes = || prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes);
    let value = prop_oneof![
        12 => bytes(),
        1 => (65535..65538usize).prop_map(Value::Zeros),
        1 => acl(),
    ];
    let acl_value = || prop_oneof![8 => acl(), 1 => bytes(), 1 => Just(Value::Bytes(Vec::new()))];
    let set = |(inode, name, value, flags)| Step::SetXattr { inode, name, value, flags };
    prop_oneof![
        3 => (any_pick(), any::<u8>(), value, any::<u8>()).prop_map(set),
        2 => (any_pick(), Just(0), acl_value(), any::<u8>()).prop_map(set),
        2 => (pick(), Just(1), acl_value(), any::<u8>()).prop_map(set),
        3 => (any_pick(), any::<u8>())
            .prop_map(|(inode, name)| Step::RemoveXattr { inode, name }),
    ]
}

/// Offsets as those of writes, and now and then the last ones there are.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..14u64, 8 => 0..4000u64, 1 => i64::MAX as u64 - 20..=i64::MAX as u64]
}

fn range_step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![4 => 0..10u64, 4 => 0..3000u64, 1 => Just(i64::MAX as u64)];
    let size = prop_oneof![4 => Just(0), 2 => 0..5000u64, 1 => Just(i64::MAX as u64 + 1)];
    prop_oneof![
        (file_pick(), offset(), length(), size, any::<bool>()).prop_map(
            |(inode, offset, length, size, kill)| Step::Punch { inode, offset, length, size, kill }
        ),
        (file_pick(), file_pick(), offset(), offset(), length(), any::<bool>()).prop_map(
            |(from, to, from_offset, to_offset, length, kill)| {
                Step::Clone { from, to, from_offset, to_offset, length, kill }
            }
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![
        4 => 0..6000u64, 4 => 0..14u64, 1 => Just(i64::MAX as u64), 1 => Just(i64::MAX as u64 + 1)
    ];
    // Wide ones, and ones that touch and overlap by single bytes.
    let run = prop_oneof![(0..4000u64, 1..1500u64), (0..12u64, 1..5u64)];
    let runs = prop::collection::vec(run, 0..4);
    let any_mode = prop_oneof![0..0o10000u32, any::<u32>()];
    let credit = prop_oneof![2 => Just(0), 2 => 0..3000u64];
    prop_oneof![
        4 => (place(), mode(), umask(), 0..3u32, 0..3u32)
            .prop_map(|(at, mode, umask, uid, gid)| Step::Create { at, mode, umask, uid, gid }),
        3 => (place(), 0..0o10000u32, umask(), 0..3u32)
            .prop_map(|(at, mode, umask, gid)| Step::Mkdir { at, mode, umask, gid }),
        1 => (place(), prop_oneof![0..5usize, 4090..4100usize])
            .prop_map(|(at, length)| Step::Symlink { at, length }),
        2 => (file_pick(), place()).prop_map(|(inode, at)| Step::Link { inode, at }),
        2 => place().prop_map(|at| Step::Unlink { at }),
        2 => place().prop_map(|at| Step::Rmdir { at }),
        6 => (place(), place(), 0..8u8).prop_map(|(from, to, mode)| Step::Rename { from, to, mode }),
        3 => (file_pick(), prop::option::of(size), prop::option::of(any_mode),
              prop::option::of(0..3u32), any::<u8>())
            .prop_map(|(inode, size, mode, owner, times)| {
                Step::Setattr { inode, size, mode, owner, times }
            }),
        7 => (file_pick(), runs, 0..100u64, any::<[bool; 3]>(), credit)
            .prop_map(|(inode, runs, hole, [kill, scatter, append], credit)| {
                Step::Write { inode, runs, hole, kill, scatter, append, credit }
            }),
        6 => range_step(),
        8 => xattr_step(),
    ]
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let steps = prop_oneof![
        3 => prop::collection::vec(step(), 1..2),
        1 => prop::collection::vec(step(), 2..6)
    ];
    prop_oneof![
        30 => (steps, any::<bool>()).prop_map(|(steps, repeat)| Action::Batch { steps, repeat }),
        2 => (1..5u32).prop_map(|max_rows| Action::Purge { max_rows }),
        1 => Just(Action::Checkpoint),
        1 => any::<u64>().prop_map(|seed| Action::Crash { seed }),
        1 => Just(Action::NewBlock),
        2 => (prop::option::weighted(0.7, -5..6000i64), prop::option::weighted(0.3, -1..6i64))
            .prop_map(|(bytes, names)| Action::Quotas { bytes, names }),
        5 => (any::<bool>(), 0..5000u64, 0..3000u64, prop_oneof![2 => Just(0), 1 => 0..3000u64])
            .prop_map(|(other, bytes, least, release)| {
                Action::Reserve { other, bytes, least, release }
            }),
        1 => Just(Action::EndOther),
    ]
}

impl Step {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Step::Create { .. } => "create",
            Step::Mkdir { .. } => "mkdir",
            Step::Symlink { .. } => "symlink",
            Step::Link { .. } => "link",
            Step::Unlink { .. } => "unlink",
            Step::Rmdir { .. } => "rmdir",
            Step::Rename { mode: 0, .. } => "rename noreplace",
            Step::Rename { mode: 1 | 2, .. } => "rename exchange",
            Step::Rename { .. } => "rename",
            Step::Setattr { size: Some(_), .. } => "truncate",
            Step::Setattr { .. } => "setattr",
            Step::Write { append: true, .. } => "append",
            Step::Write { .. } => "write",
            Step::Punch { .. } => "punch",
            Step::Clone { .. } => "clone",
            Step::SetXattr { name, .. } if [ACCESS, DEFAULT].contains(&xattr_name(*name)) => {
                "set an ACL"
            }
            Step::SetXattr { .. } => "setxattr",
            Step::RemoveXattr { .. } => "removexattr",
        }
    }
}
