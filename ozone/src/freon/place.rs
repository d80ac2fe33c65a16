//! Turns the words of a command line into targets, and numbers into names.

use std::sync::Arc;

use ozone_types::{BucketName, ErrorCode, FsError, FsResult, VolumeName};
use tokio::runtime::Runtime;

use super::options::{PlaceArgs, Spread};
use super::stop::Stop;
use super::target::{Bucket, Mounted, Target};
use super::trouble::Attempt;
use crate::cluster_client::Admin;
use crate::{Failure, sh};

/// Where a load goes: one target for each client.
pub struct Places {
    pub targets: Vec<Arc<dyn Target>>,
    /// Of those that are sessions, to be ended.
    sessions: Vec<Arc<Bucket>>,
    layout: Layout,
}

/// Which name a number has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    prefix: String,
    /// Each client has a directory of its own.
    directories: bool,
    clients: u64,
    /// All clients see all objects under the same names.
    shared: bool,
}

impl Layout {
    /// The directory of a client's objects; empty: the root.
    pub fn dir(&self, client: u64) -> String {
        match (self.prefix.is_empty(), self.directories) {
            (false, true) => format!("{}/client{client}", self.prefix),
            (true, true) => format!("client{client}"),
            (_, false) => self.prefix.clone(),
        }
    }

    /// The object with this number, among those of its client.
    pub fn name(&self, number: impl std::fmt::Display, client: u64) -> String {
        let dir = self.dir(client);
        if dir.is_empty() { number.to_string() } else { format!("{dir}/{number}") }
    }

    /// How many of the first `objects` a client can see.
    pub fn seen(&self, objects: u64, client: u64) -> u64 {
        match self.shared {
            true => objects,
            false => (objects + self.clients - 1 - client) / self.clients,
        }
    }

    /// The number of the `index`-th that it sees.
    pub fn nth_seen(&self, index: u64, client: u64) -> u64 {
        if self.shared { index } else { client + index * self.clients }
    }

    /// The client that a number belongs to.
    pub fn client(&self, number: u64) -> u64 {
        number % self.clients
    }
}

impl Places {
    /// Opens sessions, or looks at directories. With `make`, volumes and buckets that are missing are
    /// made. Errors: names that are none; no such bucket; not a mount.
    pub fn open(
        args: &PlaceArgs,
        prefix: String,
        make: bool,
        runtime: &Runtime,
        stop: &Stop,
    ) -> Result<Places, Failure> {
        let clients = args.path.len().max(usize::from(args.clients));
        let spread = args.spread.unwrap_or(match clients {
            1 => Spread::None,
            _ => Spread::Directories,
        });
        let layout = Layout {
            prefix,
            directories: spread == Spread::Directories,
            clients: clients as u64,
            shared: spread == Spread::None,
        };
        let mut places = Places { targets: Vec::new(), sessions: Vec::new(), layout };
        for dir in &args.path {
            places.targets.push(Arc::new(Mounted::new(dir, args.any_filesystem, stop)?));
        }
        if args.path.is_empty() {
            let metad = args.metad.resolve()?;
            for client in 0..clients {
                let bucket = match spread {
                    Spread::Buckets => format!("{}-{client}", args.bucket),
                    Spread::None | Spread::Directories => args.bucket.clone(),
                };
                if make && (client == 0 || spread == Spread::Buckets) {
                    runtime.block_on(make_bucket(&metad, &args.volume, &bucket))?;
                }
                let of = (args.volume.as_str(), bucket.as_str());
                let session = Bucket::connect(runtime.handle(), stop, &metad, of, args.memory)?;
                places.sessions.push(session.clone());
                places.targets.push(session);
            }
        }
        Ok(places)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes the directories that objects are put in.
    pub fn make_dirs(&self) -> Attempt<()> {
        (0..).zip(&self.targets).try_for_each(|(n, target)| target.make_dirs(&self.layout.dir(n)))
    }

    /// Waits until all that was written is stored.
    pub fn finish(&self) -> Attempt<()> {
        self.targets.iter().try_for_each(|target| target.finish())
    }

    /// Ends the sessions. Errors: what was lost.
    pub fn close(&self) -> Attempt<()> {
        self.sessions.iter().try_for_each(|session| session.disconnect())
    }
}

/// Makes a volume and a bucket where they are missing.
pub async fn make_bucket(metad: &[String], volume: &str, bucket: &str) -> Result<(), Failure> {
    let (volume, bucket) = (VolumeName::new(volume)?, BucketName::new(bucket)?);
    let admin = Admin::new(metad.to_vec())?;
    unless_exists(sh::volume::create(&admin, sh::volume::new(&volume)).await)?;
    unless_exists(sh::bucket::create(&admin, sh::bucket::new(&volume, &bucket)).await)?;
    Ok(())
}

fn unless_exists(made: FsResult<()>) -> FsResult<()> {
    match made.as_ref().map_err(FsError::code) {
        Err(ErrorCode::VolumeExists | ErrorCode::BucketExists) => Ok(()),
        Err(_) | Ok(()) => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_a_name_of_its_own() {
        let layout = |prefix: &str, directories, clients| Layout {
            prefix: prefix.to_owned(),
            directories,
            clients,
            shared: !directories,
        };
        assert_eq!(layout("run", false, 1).name(7, 0), "run/7");
        assert_eq!(layout("", false, 1).name(7, 0), "7");
        let two = layout("run", true, 2);
        assert_eq!(
            (two.name(7, two.client(7)), two.name(8, 0)),
            ("run/client1/7".into(), "run/client0/8".into())
        );
        assert_eq!(layout("", true, 2).name("x", 1), "client1/x");
        let seen: Vec<_> = (0..two.seen(5, 1)).map(|n| two.nth_seen(n, 1)).collect();
        assert_eq!(seen, [1, 3]);
        assert_eq!((two.seen(5, 0), two.seen(1, 1)), (3, 0));
        let all = layout("", false, 2);
        assert_eq!((all.seen(5, 1), all.nth_seen(4, 1)), (5, 4));
    }
}
