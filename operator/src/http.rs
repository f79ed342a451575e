//! Health, readiness and metrics over HTTP.
//!
//! | Path | Says yes |
//! |---|---|
//! | `/healthz` | while the process runs |
//! | `/readyz` | while this operator leads and serves agents |
//! | `/standbyz` | while it does so, or stands by and has read the lease of late |
//!
//! A Service that follows `/readyz` leads agents to the leader alone.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::leader::{Leadership, Terms};
use crate::metrics::Metrics;

/// What this process does.
#[derive(Debug)]
pub struct Health {
    /// Whether it leads.
    pub leadership: Leadership,
    /// How long a look at the lease counts.
    pub terms: Terms,
    /// Whether it serves agents.
    pub metrics: Arc<Metrics>,
}

impl Health {
    fn serves(&self) -> bool {
        self.leadership.holds() && self.metrics.serves()
    }

    fn stands_by(&self) -> bool {
        let looked = self.leadership.last_look();
        looked.is_some_and(|it| it.elapsed() < self.terms.lease)
    }
}

/// Answers for as long as the process.
pub async fn serve(listener: TcpListener, health: Health) -> Infallible {
    maplatency_metrics::http::serve(listener, router(health)).await
}

fn router(health: Health) -> Router {
    let metrics = maplatency_metrics::http::router(Arc::clone(&health.metrics));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/standbyz", get(standby))
        .with_state(Arc::new(health))
        .merge(metrics)
}

type Answer = (StatusCode, &'static str);

const SERVES: Answer = (StatusCode::OK, "leads and serves agents\n");

async fn ready(State(health): State<Arc<Health>>) -> Answer {
    match (health.serves(), health.leadership.holds()) {
        (true, _) => SERVES,
        (false, true) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "leads, and does not serve yet\n",
        ),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "does not lead\n"),
    }
}

async fn standby(State(health): State<Arc<Health>>) -> Answer {
    if health.serves() {
        SERVES
    } else if health.stands_by() {
        (StatusCode::OK, "stands by\n")
    } else {
        let answer = "neither leads nor has read the lease of late\n";
        (StatusCode::SERVICE_UNAVAILABLE, answer)
    }
}
