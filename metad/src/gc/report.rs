//! Tells containerd of replicas that failed.

use std::time::Duration;

use ozone_proto::containerd::ReportReplicaRequest;
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_rpc::Retry;
use ozone_types::{FsResult, RetryClass};

use super::{Bell, Bells, Progress, Worker, Workplace};

const CALL: Retry =
    Retry { deadline: Duration::from_secs(5), attempt: Duration::from_secs(2), idempotent: true };

#[derive(Debug)]
pub struct Report;

impl Worker for Report {
    const NAME: &'static str = "report_replicas";
    const INTERVAL: Duration = Duration::from_secs(1);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.report
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let reports = &place.leader.reports;
        let Some((container, blockd, why)) = reports.first() else {
            return Ok((Progress::Idle, 0));
        };
        let request = ReportReplicaRequest { container: container.0, blockd: blockd.to_vec(), why };
        let result = place
            .node
            .containerd
            .call(CALL, |channel| {
                let request = request.clone();
                async move { ContainerdClient::new(channel).report_replica(request).await }
            })
            .await;
        match result {
            Ok(_) => {}
            // containerd does not know the container or the server (any more): nothing to report.
            Err(err) if err.retry_class() == RetryClass::Final => {
                tracing::debug!(%container, %blockd, %err, "report refused");
            }
            Err(err) => return Err(err),
        }
        reports.delivered(container, blockd);
        Ok((Progress::More, 1))
    }
}
