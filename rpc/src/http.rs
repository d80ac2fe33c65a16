//! A daemon's HTTP port: `/healthz` (200, or 503 with the reason) and `/metrics` (Prometheus text).

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// Whether the daemon can do its work, and if not, why. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<Option<String>>>);

impl Health {
    /// Unwell until [`Health::set_ok`].
    pub fn starting(why: &str) -> Self {
        Health(Arc::new(RwLock::new(Some(why.to_owned()))))
    }

    pub fn set_ok(&self) {
        *self.0.write() = None;
    }

    pub fn set_bad(&self, why: impl Into<String>) {
        *self.0.write() = Some(why.into());
    }

    /// The reason, when something is wrong.
    pub fn problem(&self) -> Option<String> {
        self.0.read().clone()
    }
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    health: Health,
}

/// Serves until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(Shared { registry, health });
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

async fn healthz(State(shared): State<Shared>) -> Response {
    match shared.health.problem() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
