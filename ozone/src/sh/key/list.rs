//! `key list`, `key info`.

use std::os::unix::ffi::OsStrExt;

use ozone_proto::metad::{
    InfoKeyReply, InfoKeyRequest, ListBucketsRequest, ListKeysReply, ListKeysRequest,
};
use ozone_types::{ErrorCode, FsError, FsResult};

use crate::Outcome;
use crate::cluster_client::{Admin, MetadAddress};
use crate::sh::address::{BucketAddress, KeyAddress, VolumeAddress};
use crate::sh::options::ListArgs;
use crate::sh::view::{KeyView, Place, ReplicationView};
use crate::sh::{admin, bucket as buckets, cannot_print, json};

pub async fn bucket(metad: &MetadAddress, address: &BucketAddress, list: &ListArgs) -> Outcome {
    address.check()?;
    let admin = admin(metad, &address.metad)?;
    let listed = print(&admin, address, list, list.limit()).await?;
    if listed.more {
        tell_limit(list.limit());
    }
    Ok(())
}

/// Each bucket's keys are a list of their own, as in Ozone. Links that lead nowhere have none.
pub async fn volume(metad: &MetadAddress, address: &VolumeAddress, list: &ListArgs) -> Outcome {
    address.check()?;
    let admin = admin(metad, &address.metad)?;
    let mut request = ListBucketsRequest { volume: address.volume.clone(), ..Default::default() };
    let mut left = list.limit();
    loop {
        let page = buckets::page(&admin, &request).await?;
        let last = page.buckets.last().map(|info| info.name.clone());
        for info in page.buckets {
            let more_buckets = !page.end || Some(&info.name) != last.as_ref();
            if info.source_missing {
                continue;
            }
            let bucket = BucketAddress {
                metad: address.metad.clone(),
                volume: address.volume.clone(),
                bucket: info.name,
            };
            let listed = print(&admin, &bucket, list, left).await?;
            left -= listed.count.min(left);
            if listed.more || (left == 0 && more_buckets) {
                tell_limit(list.limit() - left);
                return Ok(());
            }
        }
        match last {
            Some(last) if !page.end => request.start_after = last,
            Some(_) | None => return Ok(()),
        }
    }
}

fn tell_limit(shown: u64) {
    eprintln!(
        "Listing first {shown} entries of the result. Use --length (-l) to override max returned \
         keys."
    );
}

struct Listed {
    count: u64,
    /// There are keys beyond those that were asked for.
    more: bool,
}

/// Prints up to `limit` keys, page by page.
async fn print(
    admin: &Admin,
    address: &BucketAddress,
    list: &ListArgs,
    limit: u64,
) -> Result<Listed, crate::Failure> {
    let mut request = ListKeysRequest {
        volume: address.volume.clone(),
        bucket: address.bucket.clone(),
        prefix: list.prefix.clone().into_bytes(),
        start_after: list.start.clone().into_bytes(),
        max: 0,
    };
    let mut count = 0;
    let mut shown = json::Array::printed();
    loop {
        request.max = u32::try_from(limit - count).unwrap_or(u32::MAX);
        let page = call(admin, &request).await?;
        let replication = ReplicationView::new(page.replication.unwrap_or_default())?;
        let place =
            Place { volume: &address.volume, bucket: &address.bucket, replication: &replication };
        for key in &page.keys {
            let attr = key.attr.unwrap_or_default();
            shown.push(&KeyView::new(&place, &key.name, &attr)).map_err(cannot_print)?;
        }
        count += page.keys.len() as u64;
        if page.end || count >= limit {
            shown.end().map_err(cannot_print)?;
            return Ok(Listed { count, more: !page.end });
        }
        if let Some(last) = page.keys.into_iter().next_back() {
            request.start_after = last.name;
        }
    }
}

async fn call(admin: &Admin, request: &ListKeysRequest) -> FsResult<ListKeysReply> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.list_keys(r).await }
    });
    call.await
}

pub async fn info(metad: &MetadAddress, address: &KeyAddress) -> Outcome {
    address.bucket.check()?;
    let admin = admin(metad, &address.bucket.metad)?;
    let mut request = InfoKeyRequest {
        volume: address.bucket.volume.clone(),
        bucket: address.bucket.bucket.clone(),
        key: address.key.as_bytes().to_vec(),
        offset: 0,
    };
    let mut reply = call_info(&admin, &request).await?;
    while let Some(last) = reply.extents.last().filter(|_| !reply.end) {
        request.offset = last.offset + last.length;
        let next = call_info(&admin, &request).await?;
        reply.attr = next.attr;
        reply.extents.extend(next.extents);
        reply.end = next.end;
    }
    let no_attr = || FsError::with(ErrorCode::Protocol, "a key without attributes");
    let attr = reply.attr.ok_or_else(no_attr)?;
    let replication = ReplicationView::new(reply.replication.unwrap_or_default())?;
    let place = Place {
        volume: &address.bucket.volume,
        bucket: &address.bucket.bucket,
        replication: &replication,
    };
    let view = KeyView::new(&place, &reply.name, &attr).with_locations(&attr, &reply.extents);
    json::print(&view).map_err(cannot_print)
}

async fn call_info(admin: &Admin, request: &InfoKeyRequest) -> FsResult<InfoKeyReply> {
    let call = admin.call(|mut a| {
        let r = request.clone();
        async move { a.info_key(r).await }
    });
    call.await
}
