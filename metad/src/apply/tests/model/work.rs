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
    Create { at: (Pick, u8), mode: u32, uid: u32, gid: u32 },
    Mkdir { at: (Pick, u8), mode: u32, gid: u32 },
    Symlink { at: (Pick, u8), length: usize },
    Link { inode: Pick, at: (Pick, u8) },
    Unlink { at: (Pick, u8) },
    Rmdir { at: (Pick, u8) },
    Rename { from: (Pick, u8), to: (Pick, u8), mode: u8 },
    Setattr { inode: Pick, size: Option<u64>, mode: Option<u32>, owner: Option<u32>, times: u8 },
    Write { inode: Pick, runs: Vec<(u64, u64)>, hole: u64, kill: bool, scatter: bool },
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
    NewBlock,
}

pub(super) const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", &[b'l'; 255]];
pub(super) const BAD_NAMES: [&[u8]; 5] = [b"", b".", b"..", b"x/y", &[b'l'; 256]];

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

fn mode() -> impl Strategy<Value = u32> {
    let kind = prop_oneof![
        16 => Just(0o100000u32), 1 => Just(0), 1 => Just(0o010000), 1 => Just(0o020000),
        1 => Just(0o040000), 1 => Just(0o060000), 1 => Just(0o120000), 1 => Just(0o140000),
        1 => Just(0o030000),
    ];
    (kind, 0..0o10000u32).prop_map(|(kind, mode)| kind | mode)
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![
        4 => 0..6000u64, 4 => 0..14u64, 1 => Just(i64::MAX as u64), 1 => Just(i64::MAX as u64 + 1)
    ];
    // Wide ones, and ones that touch and overlap by single bytes.
    let run = prop_oneof![(0..4000u64, 1..1500u64), (0..12u64, 1..5u64)];
    let runs = prop::collection::vec(run, 0..4);
    let any_mode = prop_oneof![0..0o10000u32, any::<u32>()];
    prop_oneof![
        4 => (place(), mode(), 0..3u32, 0..3u32)
            .prop_map(|(at, mode, uid, gid)| Step::Create { at, mode, uid, gid }),
        3 => (place(), 0..0o10000u32, 0..3u32)
            .prop_map(|(at, mode, gid)| Step::Mkdir { at, mode, gid }),
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
        6 => (file_pick(), runs, 0..100u64, any::<bool>(), any::<bool>())
            .prop_map(|(inode, runs, hole, kill, scatter)| {
                Step::Write { inode, runs, hole, kill, scatter }
            }),
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
        1 => Just(Action::NewBlock),
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
            Step::Write { .. } => "write",
        }
    }
}
