//! The content of a simulated disk: what programs see, what is durable, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a disk writes wholly or not at all, in bytes.
const SECTOR: u64 = 512;

pub(super) type NodeId = u64;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// What reads see.
    current: Vec<u8>,
    durable: Vec<u8>,
    /// The changes that lead from durable to current, unless a sync has failed.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { path: PathBuf, node: NodeId },
    Unlink { path: PathBuf, node: NodeId },
    Rename { from: PathBuf, to: PathBuf, node: NodeId },
    RemoveDir(PathBuf),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// As programs see them.
    names: BTreeMap<PathBuf, NodeId>,
    dirs: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, NodeId>,
    durable_dirs: BTreeSet<PathBuf>,
    /// With the directory whose sync makes the change durable.
    pending: Vec<(PathBuf, NameChange)>,
}

/// Splitmix64: decides what survives, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// How the changes of one file, or the names, fare in a crash.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Kept,
    /// The first so many changes are kept.
    Prefix(u64),
    /// Each change, and each sector of a write, has its own luck.
    Scattered,
}

impl Fate {
    fn draw(dice: &mut Dice, changes: usize) -> Fate {
        match dice.roll(6) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            2 => Fate::Prefix(dice.roll(changes as u64 + 1)),
            _ => Fate::Scattered,
        }
    }

    fn keeps(self, nth: usize, dice: &mut Dice) -> bool {
        match self {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Prefix(n) => (nth as u64) < n,
            Fate::Scattered => dice.roll(2) == 0,
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + data.len());
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(data);
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => put(content, *offset, data),
        Change::SetLen(len) => content.resize(*len as usize, 0),
    }
}

impl Node {
    fn crash(&mut self, dice: &mut Dice) {
        let fate = Fate::draw(dice, self.pending.len());
        for (nth, change) in std::mem::take(&mut self.pending).iter().enumerate() {
            match (change, fate) {
                (Change::Write { offset, data }, Fate::Scattered) => {
                    let mut at = 0;
                    while at < data.len() {
                        let sector = (offset + at as u64) / SECTOR;
                        let end = ((sector + 1) * SECTOR - offset).min(data.len() as u64) as usize;
                        if fate.keeps(nth, dice) {
                            put(&mut self.durable, offset + at as u64, &data[at..end]);
                        }
                        at = end;
                    }
                }
                _ if fate.keeps(nth, dice) => apply(&mut self.durable, change),
                _ => {}
            }
        }
        self.current = self.durable.clone();
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

fn apply_name(
    names: &mut BTreeMap<PathBuf, NodeId>,
    dirs: &mut BTreeSet<PathBuf>,
    change: &NameChange,
) {
    match change {
        NameChange::Link { path, node } => {
            names.insert(path.clone(), *node);
        }
        NameChange::Unlink { path, node } => {
            if names.get(path) == Some(node) {
                names.remove(path);
            }
        }
        NameChange::Rename { from, to, node } => {
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
        NameChange::RemoveDir(dir) => {
            names.retain(|path, _| !path.starts_with(dir));
            dirs.retain(|path| !path.starts_with(dir));
        }
    }
}

impl Image {
    pub fn lookup(&self, path: &Path) -> Option<NodeId> {
        self.names.get(path).copied()
    }

    pub fn is_dir(&self, path: &Path) -> bool {
        path == Path::new("/") || self.dirs.contains(path)
    }

    /// The errno with which a file cannot be made at `path`.
    pub fn check_parent(&self, path: &Path) -> Result<(), i32> {
        const EISDIR: i32 = 21;
        match (self.is_dir(path), self.is_dir(&parent(path))) {
            (true, _) => Err(EISDIR),
            (false, false) => Err(super::ENOENT),
            (false, true) => Ok(()),
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.entry(id).or_default()
    }

    fn change_name(&mut self, dir: PathBuf, change: NameChange) {
        apply_name(&mut self.names, &mut self.dirs, &change);
        self.pending.push((dir, change));
    }

    pub fn create(&mut self, path: &Path) -> NodeId {
        let node = self.next;
        self.next += 1;
        self.nodes.insert(node, Node::default());
        self.change_name(parent(path), NameChange::Link { path: path.to_owned(), node });
        node
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        let node = self.names[from];
        let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned(), node };
        self.change_name(parent(to), change);
    }

    pub fn remove(&mut self, path: &Path) {
        let node = self.names[path];
        self.change_name(parent(path), NameChange::Unlink { path: path.to_owned(), node });
    }

    pub fn remove_dir_all(&mut self, path: &Path) {
        self.change_name(parent(path), NameChange::RemoveDir(path.to_owned()));
    }

    pub fn create_dir_all(&mut self, path: &Path) {
        for dir in path.ancestors().filter(|p| *p != Path::new("/") && !p.as_os_str().is_empty()) {
            self.dirs.insert(dir.to_owned());
            self.durable_dirs.insert(dir.to_owned());
        }
    }

    pub fn list(&self, dir: &Path) -> Option<Vec<OsString>> {
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &PathBuf| path.file_name().map(OsString::from);
        self.is_dir(dir).then(|| {
            let files = self.names.keys().filter(inside).filter_map(name);
            let mut all: Vec<OsString> =
                files.chain(self.dirs.iter().filter(inside).filter_map(name)).collect();
            all.sort();
            all
        })
    }

    pub fn sync_dir(&mut self, dir: &Path) {
        for (of, change) in std::mem::take(&mut self.pending) {
            if of == dir {
                apply_name(&mut self.durable_names, &mut self.durable_dirs, &change);
            } else {
                self.pending.push((of, change));
            }
        }
    }

    pub fn len(&self, node: NodeId) -> u64 {
        self.node(node).current.len() as u64
    }

    /// Bytes of all files that have a name.
    pub fn bytes(&self) -> u64 {
        self.names.values().map(|&node| self.len(node)).sum()
    }

    pub fn read(&self, node: NodeId, buf: &mut [u8], offset: u64) -> usize {
        let content = &self.node(node).current;
        let from = (offset.min(content.len() as u64)) as usize;
        let n = buf.len().min(content.len() - from);
        buf[..n].copy_from_slice(&content[from..from + n]);
        n
    }

    fn change(&mut self, node: NodeId, change: Change) {
        let node = self.node_mut(node);
        apply(&mut node.current, &change);
        node.pending.push(change);
    }

    pub fn write(&mut self, node: NodeId, data: &[u8], offset: u64) {
        self.change(node, Change::Write { offset, data: data.to_vec() });
    }

    pub fn set_len(&mut self, node: NodeId, len: u64) {
        self.change(node, Change::SetLen(len));
    }

    pub fn sync(&mut self, node: NodeId) {
        let node = self.node_mut(node);
        for change in std::mem::take(&mut node.pending) {
            apply(&mut node.durable, &change);
        }
    }

    /// A failed sync: what is pending never becomes durable, though reads still see it.
    pub fn lose(&mut self, node: NodeId) {
        self.node_mut(node).pending.clear();
    }

    pub fn flip(&mut self, node: NodeId, offset: usize, mask: u8) {
        let node = self.node_mut(node);
        node.current[offset] ^= mask;
        if let Some(byte) = node.durable.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// Makes everything what `seed` lets survive of it.
    pub fn crash(&mut self, seed: u64) {
        let mut dice = Dice(seed);
        for node in self.nodes.values_mut() {
            node.crash(&mut dice);
        }
        let pending = std::mem::take(&mut self.pending);
        let fate = Fate::draw(&mut dice, pending.len());
        for (nth, (_, change)) in pending.iter().enumerate() {
            if fate.keeps(nth, &mut dice) {
                apply_name(&mut self.durable_names, &mut self.durable_dirs, change);
            }
        }
        self.names = self.durable_names.clone();
        self.dirs = self.durable_dirs.clone();
        let named: BTreeSet<NodeId> = self.names.values().copied().collect();
        self.nodes.retain(|id, _| named.contains(id));
    }
}
