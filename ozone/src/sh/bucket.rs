//! `ozone sh bucket`.

use clap::Subcommand;
use ozone_proto::metad::{
    BucketInfo, CreateBucketRequest, InfoBucketRequest, ListBucketsReply, ListBucketsRequest,
    UpdateBucketRequest,
};
use ozone_types::{BucketName, FsResult, VolumeName};

use super::address::{BucketAddress, VolumeAddress};
use super::options::{Layout, ListArgs, ReplicationArgs};
use super::quota::{ClearQuotaArgs, QuotaArgs, Quotas};
use super::session::{self, Use};
use super::view::{BucketOrLink, BucketView};
use super::{admin, caller, cannot_print, confirm, empty as contents, json, say};
use crate::Outcome;
use crate::cluster_client::{Admin, MetadAddress};

/// The mode of a bucket's root directory.
const ROOT_MODE: u32 = 0o755;
/// Asked before everything in a bucket goes.
const WARNING: &str = "This command will delete bucket recursively.\n\
    There is no recovery option after using this command, and deleted keys won't move to trash.";

#[derive(Subcommand)]
pub enum BucketCommand {
    /// Creates a bucket.
    Create {
        /// `/volume/bucket`
        address: BucketAddress,
        /// fso (FILE_SYSTEM_OPTIMIZED), obs (OBJECT_STORE) or LEGACY [default: fso].
        #[arg(short, long)]
        layout: Option<Layout>,
        #[command(flatten)]
        replication: ReplicationArgs,
        /// Owner of the bucket [default: whoever runs this].
        #[arg(short, long, alias = "owner")]
        user: Option<String>,
        #[command(flatten)]
        quotas: QuotaArgs,
    },
    /// Returns information about a bucket.
    Info {
        /// `/volume/bucket`
        address: BucketAddress,
    },
    /// Lists the buckets of a volume.
    #[command(visible_alias = "ls")]
    List {
        /// `/volume`
        address: VolumeAddress,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Updates the owner of a bucket.
    Update {
        /// `/volume/bucket`
        address: BucketAddress,
        /// Owner of the bucket to set.
        #[arg(short, long, alias = "owner")]
        user: Option<String>,
    },
    /// Sets the quotas of a bucket.
    Setquota {
        /// `/volume/bucket`
        address: BucketAddress,
        #[command(flatten)]
        quotas: QuotaArgs,
    },
    /// Clears the quotas of a bucket.
    Clrquota {
        /// `/volume/bucket`
        address: BucketAddress,
        #[command(flatten)]
        quotas: ClearQuotaArgs,
    },
    /// Deletes a bucket.
    Delete {
        /// `/volume/bucket`
        address: BucketAddress,
        /// Delete all that is in it.
        #[arg(short)]
        recursive: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Creates a link to another bucket.
    Link {
        /// The bucket which the link should point to.
        source: BucketAddress,
        /// Address of the link.
        target: BucketAddress,
    },
}

pub async fn run(command: BucketCommand, metad: &MetadAddress) -> Outcome {
    match command {
        BucketCommand::Create { address, layout, replication, user, quotas } => {
            address.check()?;
            let Quotas { bytes, names } = quotas.parse()?;
            let request = CreateBucketRequest {
                owner: user.unwrap_or_else(caller),
                replication: replication.parse()?.map(Into::into),
                layout: layout.unwrap_or(Layout::FileSystemOptimized).as_str().to_owned(),
                quota_bytes: bytes.unwrap_or_default(),
                quota_names: names.unwrap_or_default(),
                ..of_caller(address.volume, address.bucket)
            };
            Ok(create(&admin(metad, &address.metad)?, request).await?)
        }
        BucketCommand::Info { address } => {
            address.check()?;
            let info = info(&admin(metad, &address.metad)?, &address).await?;
            json::print(&BucketOrLink::new(info)?).map_err(cannot_print)
        }
        BucketCommand::List { address, list } => {
            address.check()?;
            print_list(&admin(metad, &address.metad)?, address.volume, &list).await
        }
        BucketCommand::Update { address, user } => {
            // An empty name changes nothing, as in Ozone.
            let owner = user.filter(|user| !user.is_empty());
            let info = update(metad, &address, owner, Quotas::default()).await?;
            json::print(&BucketView::new(info)?).map_err(cannot_print)
        }
        BucketCommand::Setquota { address, quotas } => {
            update(metad, &address, None, quotas.parse_some()?).await.map(drop)
        }
        BucketCommand::Clrquota { address, quotas } => {
            update(metad, &address, None, quotas.parse()?).await.map(drop)
        }
        BucketCommand::Delete { address, recursive, yes } => {
            address.check()?;
            if recursive && !yes && !confirm::confirmed(WARNING)? {
                return Ok(());
            }
            delete_one(metad, &address, recursive).await
        }
        BucketCommand::Link { source, target } => {
            source.check()?;
            target.check()?;
            let request = CreateBucketRequest {
                source_volume: source.volume,
                source_bucket: source.bucket,
                ..of_caller(target.volume, target.bucket)
            };
            let named = if source.metad.is_empty() { &target.metad } else { &source.metad };
            Ok(create(&admin(metad, named)?, request).await?)
        }
    }
}

/// What makes a bucket of the default kind that belongs to whoever runs this.
pub fn new(volume: &VolumeName, bucket: &BucketName) -> CreateBucketRequest {
    of_caller(volume.as_str().to_owned(), bucket.as_str().to_owned())
}

fn of_caller(volume: String, name: String) -> CreateBucketRequest {
    CreateBucketRequest {
        volume,
        name,
        owner: caller(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        mode: ROOT_MODE,
        ..Default::default()
    }
}

/// Makes a bucket or a link.
pub async fn create(admin: &Admin, request: CreateBucketRequest) -> FsResult<()> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.create_bucket(r).await }
    });
    call.await.map(drop)
}

/// What metad knows of a bucket.
pub async fn info(admin: &Admin, address: &BucketAddress) -> FsResult<BucketInfo> {
    let request =
        InfoBucketRequest { volume: address.volume.clone(), bucket: address.bucket.clone() };
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.info_bucket(r).await }
    });
    call.await
}

/// A page of a volume's buckets.
pub async fn page(admin: &Admin, request: &ListBucketsRequest) -> FsResult<ListBucketsReply> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.list_buckets(r).await }
    });
    call.await
}

/// Deletes a bucket without files, or a link.
pub async fn delete(admin: &Admin, request: &InfoBucketRequest) -> FsResult<()> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.delete_bucket(r).await }
    });
    call.await.map(drop)
}

async fn update(
    metad: &MetadAddress,
    address: &BucketAddress,
    owner: Option<String>,
    quotas: Quotas,
) -> Result<BucketInfo, crate::Failure> {
    address.check()?;
    let request = UpdateBucketRequest {
        volume: address.volume.clone(),
        bucket: address.bucket.clone(),
        owner,
        quota_bytes: quotas.bytes,
        quota_names: quotas.names,
    };
    let admin = admin(metad, &address.metad)?;
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.update_bucket(r).await }
    });
    Ok(call.await?)
}

async fn print_list(admin: &Admin, volume: String, list: &ListArgs) -> Outcome {
    let mut request = ListBucketsRequest {
        volume,
        start_after: list.start.clone(),
        prefix: list.prefix.clone(),
        max: 0,
    };
    let mut left = list.limit();
    let mut shown = json::Array::printed();
    loop {
        request.max = u32::try_from(left).unwrap_or(u32::MAX);
        let found = page(admin, &request).await?;
        left -= (found.buckets.len() as u64).min(left);
        if let Some(last) = found.buckets.last() {
            request.start_after.clone_from(&last.name);
        }
        for info in found.buckets {
            shown.push(&BucketOrLink::new(info)?).map_err(cannot_print)?;
        }
        if found.end || left == 0 {
            return shown.end().map_err(cannot_print);
        }
    }
}

async fn delete_one(metad: &MetadAddress, address: &BucketAddress, recursive: bool) -> Outcome {
    let admin = admin(metad, &address.metad)?;
    if recursive {
        let info = info(&admin, address).await?;
        empty(metad, address, &info).await?;
    }
    let request =
        InfoBucketRequest { volume: address.volume.clone(), bucket: address.bucket.clone() };
    delete(&admin, &request).await?;
    say(&format!("Bucket {} is deleted", address.bucket))
}

/// Deletes all that is in a bucket; a link has nothing in it.
pub async fn empty(metad: &MetadAddress, address: &BucketAddress, info: &BucketInfo) -> Outcome {
    if info.root == 0 || info.used_names == 0 {
        return Ok(());
    }
    let progress = contents::progress(info.used_names);
    let done = session::with(metad, address, Use::Change, async |client| {
        Ok(contents::empty(client, &progress).await?)
    });
    let outcome = done.await;
    progress.finish_and_clear();
    outcome
}
