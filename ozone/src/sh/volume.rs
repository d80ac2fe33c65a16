//! `ozone sh volume`.

use clap::Subcommand;
use ozone_proto::metad::{
    CreateVolumeRequest, InfoBucketRequest, InfoVolumeRequest, ListBucketsRequest,
    ListVolumesRequest, UpdateVolumeRequest, VolumeInfo,
};
use ozone_types::{FsResult, VolumeName};

use super::address::{BucketAddress, RootAddress, VolumeAddress};
use super::options::ListArgs;
use super::quota::{ClearQuotaArgs, QuotaArgs, Quotas};
use super::view::VolumeView;
use super::{admin, bucket, caller, cannot_print, confirm, json, say};
use crate::cluster_client::{Admin, MetadAddress};
use crate::{Failure, Outcome};

/// Asked before everything in a volume goes.
const WARNING: &str = "This command will delete volume recursively.\n\
    There is no recovery option after using this command, and no trash for FSO buckets.\n\
    Delay is expected running this command.";

#[derive(Subcommand)]
pub enum VolumeCommand {
    /// Creates a volume.
    Create {
        /// `/volume`
        address: VolumeAddress,
        /// Owner of the volume [default: whoever runs this].
        #[arg(short, long, alias = "owner")]
        user: Option<String>,
        #[command(flatten)]
        quotas: QuotaArgs,
    },
    /// Returns information about a volume.
    Info {
        /// `/volume`
        address: VolumeAddress,
    },
    /// Lists the volumes of a user.
    #[command(visible_alias = "ls")]
    List {
        /// `/`, or the metad to ask: `o3://host:port/`
        #[arg(default_value = "/")]
        address: RootAddress,
        #[command(flatten)]
        list: ListArgs,
        /// Whose volumes [default: of whoever runs this; with --all: everybody's].
        #[arg(short, long)]
        user: Option<String>,
    },
    /// Updates the owner of a volume.
    Update {
        /// `/volume`
        address: VolumeAddress,
        /// Owner of the volume to set.
        #[arg(short, long, alias = "owner")]
        user: Option<String>,
    },
    /// Sets the quotas of a volume.
    Setquota {
        /// `/volume`
        address: VolumeAddress,
        #[command(flatten)]
        quotas: QuotaArgs,
    },
    /// Clears the quotas of a volume.
    Clrquota {
        /// `/volume`
        address: VolumeAddress,
        #[command(flatten)]
        quotas: ClearQuotaArgs,
    },
    /// Deletes a volume.
    Delete {
        /// `/volume`
        address: VolumeAddress,
        /// Delete all its buckets, with all that is in them.
        #[arg(short)]
        recursive: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(command: VolumeCommand, metad: &MetadAddress) -> Outcome {
    match command {
        VolumeCommand::Create { address, user, quotas } => {
            address.check()?;
            let Quotas { bytes, names } = quotas.parse()?;
            let request = CreateVolumeRequest {
                name: address.volume,
                owner: user.unwrap_or_else(caller),
                admin: caller(),
                quota_bytes: bytes.unwrap_or_default(),
                quota_names: names.unwrap_or_default(),
                time: None,
            };
            Ok(create(&admin(metad, &address.metad)?, request).await?)
        }
        VolumeCommand::Info { address } => {
            address.check()?;
            let info = info(&admin(metad, &address.metad)?, &address.volume).await?;
            json::print(&VolumeView::from(info)).map_err(cannot_print)
        }
        VolumeCommand::List { address, list, user } => {
            let owner = match (list.all, user) {
                (true, _) => String::new(),
                (false, user) => user.unwrap_or_else(caller),
            };
            print_list(&admin(metad, &address.metad)?, &list, owner).await
        }
        VolumeCommand::Update { address, user } => {
            address.check()?;
            let admin = admin(metad, &address.metad)?;
            // An empty name changes nothing, as in Ozone.
            let owner = user.filter(|user| !user.is_empty());
            let request =
                UpdateVolumeRequest { volume: address.volume, owner, ..Default::default() };
            json::print(&VolumeView::from(update(&admin, request).await?)).map_err(cannot_print)
        }
        VolumeCommand::Setquota { address, quotas } => {
            set_quotas(metad, address, quotas.parse_some()?).await
        }
        VolumeCommand::Clrquota { address, quotas } => {
            set_quotas(metad, address, quotas.parse()?).await
        }
        VolumeCommand::Delete { address, recursive, yes } => {
            address.check()?;
            if recursive && !yes && !confirm::confirmed(WARNING)? {
                return Ok(());
            }
            delete(metad, &address, recursive).await
        }
    }
}

/// What makes a volume that belongs to whoever runs this.
pub fn new(name: &VolumeName) -> CreateVolumeRequest {
    let name = name.as_str().to_owned();
    CreateVolumeRequest { name, owner: caller(), admin: caller(), ..Default::default() }
}

/// Makes a volume.
pub async fn create(admin: &Admin, request: CreateVolumeRequest) -> FsResult<()> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.create_volume(r).await }
    });
    call.await.map(drop)
}

async fn info(admin: &Admin, volume: &str) -> FsResult<VolumeInfo> {
    let request = InfoVolumeRequest { volume: volume.to_owned() };
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.info_volume(r).await }
    });
    call.await
}

async fn update(admin: &Admin, request: UpdateVolumeRequest) -> FsResult<VolumeInfo> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.update_volume(r).await }
    });
    call.await
}

async fn set_quotas(metad: &MetadAddress, address: VolumeAddress, quotas: Quotas) -> Outcome {
    address.check()?;
    let request = UpdateVolumeRequest {
        volume: address.volume,
        owner: None,
        quota_bytes: quotas.bytes,
        quota_names: quotas.names,
    };
    update(&admin(metad, &address.metad)?, request).await?;
    Ok(())
}

async fn print_list(admin: &Admin, list: &ListArgs, owner: String) -> Outcome {
    let mut request = ListVolumesRequest {
        start_after: list.start.clone(),
        prefix: list.prefix.clone(),
        max: 0,
        owner,
    };
    let mut left = list.limit();
    let mut shown = json::Array::printed();
    loop {
        request.max = u32::try_from(left).unwrap_or(u32::MAX);
        let call = admin.call(|mut a| {
            let r = request.clone();
            async move { a.list_volumes(r).await }
        });
        let page = call.await?;
        left -= (page.volumes.len() as u64).min(left);
        if let Some(last) = page.volumes.last() {
            request.start_after.clone_from(&last.name);
        }
        for info in page.volumes {
            shown.push(&VolumeView::from(info)).map_err(cannot_print)?;
        }
        if page.end || left == 0 {
            return shown.end().map_err(cannot_print);
        }
    }
}

async fn delete(metad: &MetadAddress, address: &VolumeAddress, recursive: bool) -> Outcome {
    let admin = admin(metad, &address.metad)?;
    let VolumeAddress { volume, .. } = address;
    if recursive {
        delete_buckets(metad, &admin, address).await?;
    }
    let request = InfoVolumeRequest { volume: volume.clone() };
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.delete_volume(r).await }
    });
    call.await?;
    say(&format!("Volume {volume} is deleted"))
}

async fn delete_buckets(
    metad: &MetadAddress,
    admin: &Admin,
    address: &VolumeAddress,
) -> Result<(), Failure> {
    loop {
        let request = ListBucketsRequest { volume: address.volume.clone(), ..Default::default() };
        let page = bucket::page(admin, &request).await?;
        for info in page.buckets {
            let bucket = BucketAddress {
                metad: address.metad.clone(),
                volume: address.volume.clone(),
                bucket: info.name.clone(),
            };
            bucket::empty(metad, &bucket, &info).await?;
            let request = InfoBucketRequest { volume: address.volume.clone(), bucket: info.name };
            bucket::delete(admin, &request).await?;
        }
        if page.end {
            return Ok(());
        }
    }
}
