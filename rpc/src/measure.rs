//! How long each method of a gRPC service takes, measured around the service: its handlers know
//! nothing of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// The method, as the .proto file has it, in small letters: `reserve_blocks`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: String,
}

/// The measurements of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Methods {
    seconds: Family<MethodLabel, Histogram>,
    errors: Family<MethodLabel, Counter>,
    /// Streams: their answer begins at once, which says nothing.
    skip: &'static [&'static str],
}

/// Buckets from 20 µs to 10 s, for whatever a daemon does.
pub fn latency() -> Histogram {
    Histogram::new(exponential_buckets(20e-6, 2.0, 20))
}

impl Methods {
    /// `request_seconds` and `errors` in `registry`, of all methods but `skip`.
    pub fn register(registry: &mut Registry, skip: &'static [&'static str]) -> Methods {
        let methods = Methods {
            seconds: Family::new_with_constructor(latency),
            errors: Family::default(),
            skip,
        };
        let (seconds, errors) = (methods.seconds.clone(), methods.errors.clone());
        registry.register("request_seconds", "Time to answer a request", seconds);
        registry.register("errors", "Requests answered with an error", errors);
        methods
    }

    /// The service, measured.
    pub fn measure<S>(&self, inner: S) -> Measured<S> {
        Measured { inner, methods: self.clone() }
    }

    fn answered(&self, path: &str, begun: Instant, code: Code) {
        let method = method(path);
        // Anybody can ask for methods that there are not.
        if code == Code::Unimplemented || self.skip.contains(&method.as_str()) {
            return;
        }
        self.note(method, begun, code != Code::Ok);
    }

    /// A request has been answered that came in by another way than gRPC.
    pub fn note(&self, method: impl Into<String>, begun: Instant, failed: bool) {
        let label = MethodLabel { method: method.into() };
        self.seconds.get_or_create(&label).observe(begun.elapsed().as_secs_f64());
        // Also where it is 0, so that the first error is seen as a change.
        self.errors.get_or_create(&label).inc_by(u64::from(failed));
    }
}

/// The last part of `/package.Service/MethodName`, as `method_name`.
fn method(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut method = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !method.is_empty() {
            method.push('_');
        }
        method.push(letter.to_ascii_lowercase());
    }
    method
}

/// A service whose methods are measured.
#[derive(Clone, Debug)]
pub struct Measured<S> {
    inner: S,
    methods: Methods,
}

impl<S: NamedService> NamedService for Measured<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Measured<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (methods, begun) = (self.methods.clone(), Instant::now());
        let path = request.uri().path().to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // A refusal has its status here, and a reply behind its message.
            let code = Status::from_header_map(answer.headers()).map_or(Code::Ok, |s| s.code());
            methods.answered(&path, begun, code);
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_methods() {
        assert_eq!(method("/ozone.containerd.Containerd/ReserveBlocks"), "reserve_blocks");
        assert_eq!(method("/ozone.blockd.Blockd/Read"), "read");
        assert_eq!(method(""), "");
    }

    #[test]
    fn what_is_counted() {
        let mut registry = Registry::default();
        let methods = Methods::register(&mut registry, &["append"]);
        methods.answered("/p.S/ReadOne", Instant::now(), Code::Ok);
        methods.answered("/p.S/ReadOne", Instant::now(), Code::NotFound);
        methods.answered("/p.S/Append", Instant::now(), Code::Ok);
        methods.answered("/p.S/Nonsense", Instant::now(), Code::Unimplemented);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("request_seconds_count{method=\"read_one\"} 2"), "{text}");
        assert!(text.contains("errors_total{method=\"read_one\"} 1"), "{text}");
        assert!(!text.contains("append") && !text.contains("nonsense"), "{text}");
    }
}
