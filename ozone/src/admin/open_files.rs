//! `ozone admin open-files`: which client has what open, leased or locked, as metad knows it. A client
//! that is alone in its bucket (it holds the lease on the NAMESPACE) keeps its locks to itself until
//! another comes.

use std::collections::HashMap;

use clap::Subcommand;
use ozone_proto::metad::{
    FileLock, FindPathsReply, FindPathsRequest, LeaseKind, ListOpenFilesRequest, LockFamily,
    LockKind, OpenFile, OpenFileKey, SessionInfo,
};
use ozone_types::FsResult;
use ozone_types::limits::{LOCK_END, NAMESPACE_INODE};
use serde::Serialize;

use super::servers::{Servers, wait};
use super::session;
use super::show::{Format, Table};
use crate::Outcome;
use crate::cluster_client::Admin;

/// Inodes whose names are asked for in one call.
const PATHS_PAGE: usize = 1000;

#[derive(Subcommand)]
pub enum OpenFilesCommand {
    /// Everything that is open, leased or locked. Locks of a client that is alone in its bucket are its
    /// own affair, and not told.
    List {
        /// Only what this session holds.
        #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
        session: u64,
        /// Do not look for the files' names, which takes longer the more names a bucket has.
        #[arg(long)]
        no_path: bool,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    session: u64,
    host: String,
    pid: u32,
    mountpoint: String,
    volume: String,
    bucket: String,
    inode: u64,
    /// Below the bucket; null where the name is not known.
    path: Option<String>,
    /// It has no name (any more): it goes when it is closed.
    deleted: bool,
    /// FILE, or NAMESPACE: all names and attributes of the bucket.
    kind: &'static str,
    /// READ, WRITE, or NONE for what is only locked.
    open: &'static str,
    lease: &'static str,
    /// The client has been asked to flush, or to give back its lease, and has not answered.
    recalled: bool,
    /// The first hundred.
    locks: Vec<Lock>,
    lock_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    family: &'static str,
    kind: &'static str,
    start: u64,
    /// The last byte; null: to the end of the file, wherever that is.
    end: Option<u64>,
    pid: u32,
}

/// What is known of buckets: their names, and names of inodes in them.
type Names = HashMap<u64, FindPathsReply>;

pub fn run(servers: &Servers, format: Format, command: &OpenFilesCommand) -> Outcome {
    let OpenFilesCommand::List { session, no_path } = command;
    let admin = servers.metad()?;
    let open = wait(async {
        let sessions = session::fetch(&admin).await?.sessions;
        let files = fetch(&admin, *session).await?;
        let names = find_names(&admin, &files, !no_path).await?;
        Ok(views(files, &sessions, &names))
    })?;
    format.show(&open, |open| table(open))
}

async fn fetch(admin: &Admin, session: u64) -> FsResult<Vec<OpenFile>> {
    let mut all: Vec<OpenFile> = Vec::new();
    loop {
        let after: Option<OpenFileKey> = all.last().and_then(|file| file.key);
        let request = ListOpenFilesRequest { session, after, max: 0 };
        let page = admin.call(|mut a| async move { a.list_open_files(request).await }).await?;
        let empty = page.files.is_empty();
        all.extend(page.files);
        if page.end || empty {
            return Ok(all);
        }
    }
}

/// Without `paths` only the names of the buckets. `complete`: what is not found has no name.
async fn find_names(admin: &Admin, files: &[OpenFile], paths: bool) -> FsResult<Names> {
    let mut inodes: HashMap<u64, Vec<u64>> = HashMap::new();
    for key in files.iter().filter_map(|f| f.key) {
        let of_bucket = inodes.entry(key.bucket).or_default();
        if paths && key.inode != NAMESPACE_INODE {
            of_bucket.push(key.inode);
        }
    }
    let mut names = Names::new();
    for (bucket, mut inodes) in inodes {
        inodes.sort_unstable();
        inodes.dedup();
        // At least once, for the bucket's own name.
        let mut pages: Vec<&[u64]> = inodes.chunks(PATHS_PAGE).collect();
        if pages.is_empty() {
            pages.push(&[]);
        }
        for page in pages {
            let request = FindPathsRequest { bucket, inodes: page.to_vec() };
            let found = admin
                .call(|mut a| {
                    let request = request.clone();
                    async move { a.find_paths(request).await }
                })
                .await?;
            let known = names.entry(bucket);
            let known = known.or_insert(FindPathsReply { complete: paths, ..Default::default() });
            known.paths.extend(found.paths);
            known.complete &= found.complete;
            (known.volume, known.bucket) = (found.volume, found.bucket);
        }
    }
    Ok(names)
}

fn views(files: Vec<OpenFile>, sessions: &[SessionInfo], names: &Names) -> Vec<Open> {
    let sessions: HashMap<u64, &SessionInfo> = sessions.iter().map(|s| (s.id, s)).collect();
    let mut paths: HashMap<(u64, u64), String> = HashMap::new();
    for (&bucket, found) in names {
        for found in &found.paths {
            let path = String::from_utf8_lossy(&found.path).into_owned();
            paths.insert((bucket, found.inode), path);
        }
    }
    let unknown = (SessionInfo::default(), FindPathsReply::default());
    let view = |file: OpenFile| {
        let key = file.key.unwrap_or_default();
        // One that has begun since the sessions were listed.
        let session = sessions.get(&key.session).copied().unwrap_or(&unknown.0);
        let place = names.get(&key.bucket).unwrap_or(&unknown.1);
        let path = paths.get(&(key.bucket, key.inode)).cloned();
        let is_file = key.inode != NAMESPACE_INODE;
        Open {
            session: key.session,
            host: session.host.clone(),
            pid: session.pid,
            mountpoint: session.mountpoint.clone(),
            volume: place.volume.clone(),
            bucket: place.bucket.clone(),
            inode: key.inode,
            deleted: is_file && path.is_none() && place.complete,
            path,
            kind: if is_file { "FILE" } else { "NAMESPACE" },
            open: match (file.open, file.write) {
                (false, _) => "NONE",
                (true, false) => "READ",
                (true, true) => "WRITE",
            },
            lease: match file.lease() {
                LeaseKind::LeaseNone => "NONE",
                LeaseKind::LeaseRead => "READ",
                LeaseKind::LeaseWrite => "WRITE",
            },
            recalled: file.recalled,
            lock_count: file.lock_count,
            locks: file.locks.iter().map(Lock::of).collect(),
        }
    };
    files.into_iter().map(view).collect()
}

impl Lock {
    fn of(lock: &FileLock) -> Self {
        Lock {
            family: match lock.family() {
                LockFamily::LockRecord => "RECORD",
                LockFamily::LockFlock => "FLOCK",
            },
            kind: match lock.kind() {
                LockKind::LockUnlocked => "NONE",
                LockKind::LockShared => "SHARED",
                LockKind::LockExclusive => "EXCLUSIVE",
            },
            start: lock.start,
            end: Some(lock.end).filter(|&end| end < LOCK_END),
            pid: lock.pid,
        }
    }

    fn text(&self) -> String {
        let range = match (self.family, self.start, self.end) {
            ("FLOCK", ..) | (_, 0, None) => String::new(),
            (_, start, None) => format!(" {start}-"),
            (_, start, Some(end)) => format!(" {start}-{end}"),
        };
        format!("{} {}{range}", self.family.to_lowercase(), self.kind.to_lowercase())
    }
}

fn table(open: &[Open]) -> String {
    const LOCKS_SHOWN: usize = 3;
    let columns = [">session", "host", "mountpoint", "path", ">inode", "open", "lease", "locks"];
    let mut table = Table::new(&columns);
    for o in open {
        let mut locks: Vec<String> = o.locks.iter().take(LOCKS_SHOWN).map(Lock::text).collect();
        if o.lock_count > LOCKS_SHOWN as u64 {
            locks.push(format!("and {} more", o.lock_count - LOCKS_SHOWN as u64));
        }
        let lease = if o.recalled { format!("{} (recalled)", o.lease) } else { o.lease.to_owned() };
        table.row([
            o.session.to_string(),
            o.host.clone(),
            o.mountpoint.clone(),
            name(o),
            o.inode.to_string(),
            o.open.to_owned(),
            lease,
            locks.join(", "),
        ]);
    }
    table.render("nothing is open, leased or locked")
}

fn name(open: &Open) -> String {
    let place = match open.bucket.as_str() {
        "" => "(deleted bucket)".to_owned(),
        bucket => format!("/{}/{bucket}", open.volume),
    };
    match (open.kind, &open.path) {
        ("NAMESPACE", _) => format!("{place} (names and attributes)"),
        (_, Some(path)) => format!("{place}/{path}"),
        (_, None) if open.deleted => format!("{place} (deleted)"),
        (_, None) => format!("{place} ?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_proto::metad::FoundPath;

    #[test]
    fn files_are_told_by_path_where_it_is_known() {
        let key = |inode| Some(OpenFileKey { session: 4, bucket: 1, inode });
        let lock = FileLock {
            family: LockFamily::LockRecord as i32,
            kind: LockKind::LockShared as i32,
            start: 10,
            end: 19,
            ..Default::default()
        };
        let files = vec![
            OpenFile { key: key(0), open: true, write: true, lease: 2, ..Default::default() },
            OpenFile { key: key(5), open: true, recalled: true, ..Default::default() },
            OpenFile { key: key(6), locks: vec![lock; 5], lock_count: 5, ..Default::default() },
        ];
        let sessions = [SessionInfo { id: 4, host: "h".into(), ..Default::default() }];
        let found = FindPathsReply {
            volume: "v".into(),
            bucket: "b".into(),
            paths: vec![FoundPath { inode: 5, path: b"d/f".to_vec() }],
            complete: false,
        };
        let complete = FindPathsReply { complete: true, ..found.clone() };
        let open = views(files.clone(), &sessions, &Names::from([(1, complete)]));
        assert_eq!(open.iter().map(|o| o.deleted).collect::<Vec<_>>(), [false, false, true]);
        assert!(table(&open).contains("/v/b (deleted)"));
        let open = views(files, &sessions, &Names::from([(1, found)]));
        let text = table(&open);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert!(lines[0].contains("/v/b (names and attributes)"), "{text}");
        assert!(lines[1].contains("/v/b/d/f") && lines[1].contains("NONE (recalled)"), "{text}");
        assert!(lines[2].contains("/v/b ?"), "{text}");
        assert!(lines[2].ends_with("record shared 10-19, and 2 more"), "{text}");
        assert_eq!(open[0].open, "WRITE");
    }
}
