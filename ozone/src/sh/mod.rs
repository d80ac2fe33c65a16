//! `ozone sh`: volumes and buckets.

use clap::{Args, Subcommand};
use ozone_proto::metad::{CreateBucketRequest, CreateVolumeRequest};
use ozone_types::{BucketName, ErrorCode, FsError, FsResult, Replication, VolumeName};

use crate::Outcome;
use crate::cluster_client::{Admin, MetadAddress, block_on, refused};

#[derive(Args)]
pub struct ShArgs {
    #[command(flatten)]
    metad: MetadAddress,
    #[command(subcommand)]
    object: Object,
}

#[derive(Subcommand)]
enum Object {
    /// Volumes.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Buckets.
    #[command(subcommand)]
    Bucket(BucketCommand),
}

#[derive(Subcommand)]
enum VolumeCommand {
    /// Make a volume.
    Create {
        /// `/volume`
        address: String,
        /// The owner [default: whoever runs this].
        #[arg(short, long, alias = "owner")]
        user: Option<String>,
    },
}

#[derive(Subcommand)]
enum BucketCommand {
    /// Make a bucket.
    Create {
        /// `/volume/bucket`
        address: String,
        /// FILE_SYSTEM_OPTIMIZED.
        #[arg(short, long, default_value = "FILE_SYSTEM_OPTIMIZED")]
        layout: String,
        /// How data is kept: ONE or THREE.
        #[arg(short, long, default_value = "THREE")]
        replication: String,
        /// The owner [default: whoever runs this].
        #[arg(short, long, alias = "owner")]
        user: Option<String>,
    },
}

pub fn run(args: ShArgs) -> Outcome {
    let members = args.metad.resolve()?;
    block_on(async {
        let admin = Admin::new(members)?;
        match args.object {
            Object::Volume(VolumeCommand::Create { address, user }) => {
                create_volume(&admin, &parse_volume(&address)?, user).await
            }
            Object::Bucket(BucketCommand::Create { address, layout, replication, user }) => {
                let (volume, bucket) = parse_bucket(&address)?;
                create_bucket(&admin, &volume, &bucket, &layout, replication.parse()?, user).await
            }
        }
    })?
    .map_err(refused)
}

/// Makes a volume owned by `user`, or by the caller.
pub async fn create_volume(admin: &Admin, name: &VolumeName, user: Option<String>) -> FsResult<()> {
    let request = CreateVolumeRequest {
        name: name.as_str().to_owned(),
        owner: user.unwrap_or_else(caller),
        time: None,
    };
    admin
        .call(|mut a| {
            let r = request.clone();
            async move { a.create_volume(r).await }
        })
        .await?;
    Ok(())
}

/// Makes a bucket whose root directory belongs to the caller.
pub async fn create_bucket(
    admin: &Admin,
    volume: &VolumeName,
    name: &BucketName,
    layout: &str,
    replication: Replication,
    user: Option<String>,
) -> FsResult<()> {
    if matches!(replication, Replication::Ec { .. }) {
        let why = format!("replication {replication} is not available for buckets in this version");
        return Err(FsError::with(ErrorCode::Unsupported, why));
    }
    if layout != "FILE_SYSTEM_OPTIMIZED" {
        let why = format!("layout {layout} is not available; use FILE_SYSTEM_OPTIMIZED");
        return Err(FsError::with(ErrorCode::Unsupported, why));
    }
    let request = CreateBucketRequest {
        volume: volume.as_str().to_owned(),
        name: name.as_str().to_owned(),
        owner: user.unwrap_or_else(caller),
        replication: Some(replication.into()),
        layout: layout.to_owned(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        mode: 0o755,
    };
    admin
        .call(|mut a| {
            let r = request.clone();
            async move { a.create_bucket(r).await }
        })
        .await?;
    Ok(())
}

fn caller() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |u| u.name)
}

/// `o3://host:port/vol/…`, `/vol/…` or `vol/…` into its components.
fn components(address: &str) -> Vec<&str> {
    let path = match address.strip_prefix("o3://") {
        Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    path.split('/').filter(|c| !c.is_empty()).collect()
}

fn parse_volume(address: &str) -> FsResult<VolumeName> {
    match components(address)[..] {
        [volume] => VolumeName::new(volume),
        _ => Err(wrong_address(address, "/volume")),
    }
}

fn parse_bucket(address: &str) -> FsResult<(VolumeName, BucketName)> {
    match components(address)[..] {
        [volume, bucket] => Ok((VolumeName::new(volume)?, BucketName::new(bucket)?)),
        _ => Err(wrong_address(address, "/volume/bucket")),
    }
}

fn wrong_address(address: &str, form: &str) -> FsError {
    FsError::with(ErrorCode::Invalid, format!("'{address}' is not of the form {form}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_volume("/vol1").unwrap().as_str(), "vol1");
        assert_eq!(parse_volume("o3://host:9862/vol1/").unwrap().as_str(), "vol1");
        let (volume, bucket) = parse_bucket("vol1/bucket1").unwrap();
        assert_eq!((volume.as_str(), bucket.as_str()), ("vol1", "bucket1"));
        for bad in ["/", "", "/vol1/bucket1/key", "o3://host"] {
            assert!(parse_bucket(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_volume("/X_1").unwrap_err().code(), ErrorCode::InvalidVolumeName);
    }
}
