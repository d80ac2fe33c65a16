//! What `ozone sh` and `ozone admin` ask. No session; Status is answered by every member.

use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_proto::metad::metad_admin_server::MetadAdmin;
use ozone_proto::metad_log::command::Command;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_types::FsResult;
use tonic::Request;

use super::{Answered, Boxed, answer, inspect, keys, unary, usage};
use crate::gc::Status;
use crate::node::Node;
use crate::ops;

#[derive(Clone, Debug)]
pub struct AdminService {
    node: Arc<Node>,
}

impl AdminService {
    pub fn new(node: Arc<Node>) -> Self {
        AdminService { node }
    }
}

#[tonic::async_trait]
impl MetadAdmin for AdminService {
    unary!(create_volume, CreateVolumeRequest => VolumeInfo, create_volume);
    unary!(create_bucket, CreateBucketRequest => BucketInfo, create_bucket);
    unary!(info_volume, InfoVolumeRequest => VolumeInfo, info_volume);
    unary!(info_bucket, InfoBucketRequest => BucketInfo, info_bucket);
    unary!(list_volumes, ListVolumesRequest => ListVolumesReply, list_volumes);
    unary!(list_buckets, ListBucketsRequest => ListBucketsReply, list_buckets);
    unary!(update_volume, UpdateVolumeRequest => VolumeInfo, update_volume);
    unary!(update_bucket, UpdateBucketRequest => BucketInfo, update_bucket);
    unary!(list_keys, ListKeysRequest => ListKeysReply, keys::list_keys);
    unary!(info_key, InfoKeyRequest => InfoKeyReply, keys::info_key);
    unary!(delete_volume, InfoVolumeRequest => Done, delete_volume);
    unary!(delete_bucket, InfoBucketRequest => Done, delete_bucket);
    unary!(status, StatusRequest => StatusReply, status);
    unary!(roles, RolesRequest => RolesReply, inspect::roles);
    unary!(list_sessions, ListSessionsRequest => ListSessionsReply, inspect::list_sessions);
    unary!(evict_session, EvictSessionRequest => Done, inspect::evict_session);
    unary!(list_open_files, ListOpenFilesRequest => ListOpenFilesReply, inspect::list_open_files);
    unary!(find_paths, FindPathsRequest => FindPathsReply, usage::find_paths);

    type UsageStream = usage::Replies;

    async fn usage(&self, request: Request<wire::UsageRequest>) -> Answered<Self::UsageStream> {
        answer(&self.node, "usage", usage::usage(&self.node, request.into_inner())).await
    }
}

async fn create_volume(
    node: &Arc<Node>,
    request: wire::CreateVolumeRequest,
) -> FsResult<wire::VolumeInfo> {
    node.leader()?;
    match node.propose(Command::CreateVolume(request)).await? {
        Reply::Volume(info) => Ok(info),
        other => Err(node.unexpected(&other)),
    }
}

async fn create_bucket(
    node: &Arc<Node>,
    request: wire::CreateBucketRequest,
) -> FsResult<wire::BucketInfo> {
    node.leader()?;
    match node.propose(Command::CreateBucket(request)).await? {
        Reply::Bucket(info) => Ok(info),
        other => Err(node.unexpected(&other)),
    }
}

async fn update_volume(
    node: &Arc<Node>,
    request: wire::UpdateVolumeRequest,
) -> FsResult<wire::VolumeInfo> {
    node.leader()?;
    match node.propose(Command::UpdateVolume(request)).await? {
        Reply::Volume(info) => Ok(info),
        other => Err(node.unexpected(&other)),
    }
}

async fn update_bucket(
    node: &Arc<Node>,
    request: wire::UpdateBucketRequest,
) -> FsResult<wire::BucketInfo> {
    node.leader()?;
    match node.propose(Command::UpdateBucket(request)).await? {
        Reply::Bucket(info) => Ok(info),
        other => Err(node.unexpected(&other)),
    }
}

async fn info_volume(
    node: &Arc<Node>,
    request: wire::InfoVolumeRequest,
) -> FsResult<wire::VolumeInfo> {
    node.leader()?;
    node.read(|t| ops::info_volume(t, &request.volume)).await
}

async fn info_bucket(
    node: &Arc<Node>,
    request: wire::InfoBucketRequest,
) -> FsResult<wire::BucketInfo> {
    node.leader()?;
    node.read(|t| ops::info_bucket(t, &request.volume, &request.bucket)).await
}

async fn list_volumes(
    node: &Arc<Node>,
    request: wire::ListVolumesRequest,
) -> FsResult<wire::ListVolumesReply> {
    node.leader()?;
    node.read(|t| ops::list_volumes(t, &request)).await
}

async fn list_buckets(
    node: &Arc<Node>,
    request: wire::ListBucketsRequest,
) -> FsResult<wire::ListBucketsReply> {
    node.leader()?;
    node.read(|t| ops::list_buckets(t, &request)).await
}

async fn delete_volume(node: &Arc<Node>, request: wire::InfoVolumeRequest) -> FsResult<wire::Done> {
    node.leader()?;
    node.propose(Command::DeleteVolume(request)).await?;
    Ok(wire::Done {})
}

async fn delete_bucket(node: &Arc<Node>, request: wire::InfoBucketRequest) -> FsResult<wire::Done> {
    let leader = node.leader()?;
    node.propose(Command::DeleteBucket(request)).await?;
    leader.bells.purge.ring();
    Ok(wire::Done {})
}

/// Answered also by a member that does not lead: who does, and how far it is itself.
async fn status(node: &Arc<Node>, _: wire::StatusRequest) -> FsResult<wire::StatusReply> {
    let raft = node.group.status();
    let leader = node.leader().ok();
    let counts = node.read_local(|t| Ok(ops::counts(t)?))?;
    let cluster = node.identity.get().map(|i| i.cluster.to_string());
    let mut reply = wire::StatusReply {
        node: raft.node,
        leader: leader.is_some(),
        leader_address: node.group.leader_rpc().unwrap_or_default(),
        term: raft.term,
        applied: raft.applied,
        sessions: counts.sessions,
        open_blocks: counts.open_blocks,
        orphans: counts.orphans,
        deletions_pending: counts.deletions_pending,
        session_list: Vec::new(),
        grace: false,
        cluster: cluster.unwrap_or_default(),
        workers: Vec::new(),
    };
    if let Some(leader) = leader {
        reply.grace = leader.sessions.in_grace();
        reply.workers = leader.workers.list().into_iter().map(worker_info).collect();
        let sessions = leader.sessions.with(|t| t.list()).into_iter();
        reply.session_list = sessions.map(|s| inspect::session_info(&leader, s)).collect();
    }
    Ok(reply)
}

fn worker_info((name, status): (&'static str, Status)) -> wire::WorkerInfo {
    wire::WorkerInfo {
        name: name.to_owned(),
        steps: status.steps,
        done: status.done,
        failing: status.failing.unwrap_or_default(),
    }
}
