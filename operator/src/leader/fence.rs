//! Keeps a process that leads no more from writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{Either, Ready, ready};
use http::Request;
use kube::client::Body;
use tower::{BoxError, Layer, Service};

/// Until when this process leads, by its own clock. It may be asked from everywhere.
#[derive(Clone, Debug)]
pub struct Leadership {
    begin: Instant,
    /// Nanoseconds since then.
    until: Arc<AtomicU64>,
    looked: Arc<AtomicU64>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self::none()
    }
}

impl Leadership {
    /// Not for any time.
    pub fn none() -> Self {
        Self {
            begin: Instant::now(),
            until: Arc::default(),
            looked: Arc::default(),
        }
    }

    /// For ever: there is no election.
    pub fn unopposed() -> Self {
        let leadership = Self::none();
        leadership.until.store(u64::MAX, Ordering::Relaxed);
        leadership
    }

    /// Whether it lasts.
    pub fn holds(&self) -> bool {
        !self.left().is_zero()
    }

    /// For how long it lasts.
    pub fn left(&self) -> Duration {
        moment(&self.until).saturating_sub(self.begin.elapsed())
    }

    /// When the lease was read last, if it ever was.
    pub fn last_look(&self) -> Option<Instant> {
        let looked = moment(&self.looked);
        (!looked.is_zero()).then(|| self.begin + looked)
    }

    pub(super) fn hold_until(&self, until: Instant) {
        self.set(&self.until, until);
    }

    pub(super) fn looked(&self, at: Instant) {
        self.set(&self.looked, at);
    }

    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    fn set(&self, field: &AtomicU64, at: Instant) {
        let since = at.saturating_duration_since(self.begin).as_nanos();
        field.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn moment(field: &AtomicU64) -> Duration {
    Duration::from_nanos(field.load(Ordering::Relaxed))
}

/// The operator does not lead, so it does not write.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this operator leads no more, so it writes nothing")]
pub struct NotLeading;

/// Lets a client's requests through that only read, and others while this process leads. A request that it let through
/// may still be under way when the lead ends: the next leader begins a third of the lease later, and no sooner.
#[derive(Clone, Debug)]
pub struct Fence(pub Leadership);

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced {
            inner,
            leadership: self.0.clone(),
        }
    }
}

/// A client behind a [`Fence`].
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    inner: S,
    leadership: Leadership,
}

impl<S> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<S::Response, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method().is_safe() || self.leadership.holds() {
            Either::Left(self.inner.call(request))
        } else {
            Either::Right(ready(Err(NotLeading.into())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_lasts_as_long_as_it_was_renewed_for() {
        let leadership = Leadership::none();
        assert!(!leadership.holds());
        leadership.hold_until(Instant::now() + Duration::from_mins(1));
        assert!(leadership.holds());
        assert!(leadership.left() > Duration::from_secs(50));
        leadership.hold_until(Instant::now());
        assert!(!leadership.holds());
        assert!(Leadership::unopposed().holds());
    }

    #[tokio::test]
    async fn who_leads_no_more_reads_but_does_not_write() {
        let inner = tower::service_fn(async |_: Request<Body>| Ok::<_, BoxError>(()));
        let leadership = Leadership::unopposed();
        let mut client = Fence(leadership.clone()).layer(inner);
        let request = |method: &str| {
            let request = Request::builder().method(method);
            request.body(Body::empty()).unwrap()
        };
        assert!(client.call(request("PATCH")).await.is_ok());
        leadership.end();
        assert!(client.call(request("GET")).await.is_ok());
        for method in ["PATCH", "PUT", "POST", "DELETE"] {
            let refused = client.call(request(method)).await.unwrap_err();
            assert!(refused.is::<NotLeading>(), "{method}");
        }
    }
}
