//! A service that compresses meshes over HTTP, with axum: it handles many requests at once, limits their size and time, and stops cleanly.
//!
//!     cargo run --release --example server -- 127.0.0.1:8080
//!     curl --data-binary @bunny.obj '127.0.0.1:8080/compress?format=obj&resolution=64&max_error=0.005' -o bunny.wmz
//!     curl --data-binary @bunny.wmz '127.0.0.1:8080/mesh' -o bunny.ply
//!
//! | answer | when |
//! | --- | --- |
//! | 200 | the bytes that were asked for |
//! | 400 | the upload or an argument is wrong; the body says what was met and what is expected |
//! | 404, 405 | another path, another method |
//! | 408 | the upload took longer than `upload_ms` (10 s unless the request says less) |
//! | 413 | an upload above 32 MB |
//! | 503 | the work took longer than `timeout_ms` (likewise), or the service is busy or stopping |
//!
//! The work occupies a thread, so it does not run on the threads that speak HTTP. Each request has its own `CancellationToken`: a request
//! that is too slow, or whose client has gone away, stops alone. On SIGTERM or Ctrl-C the service accepts no more requests, stops the
//! running work, answers, and ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use wavemesh::Result;
use wavemesh::mesh::MeshFormat;
use wavemesh::prelude::*;
use wavemesh::task::CancellationToken;

/// The largest upload, in bytes.
const MOST_BYTES: usize = 32 << 20;
/// The finest grid that the service makes.
const MOST_RESOLUTION: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests run at a time; others wait.
const PLACES: usize = 4;

/// The arguments of a request, after `?`.
#[derive(serde::Deserialize)]
#[serde(default)]
struct Options {
    format: String,
    resolution: usize,
    max_error: f32,
    upload_ms: u64,
    timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        let most = TIMEOUT.as_millis() as u64;
        Self { format: "obj".into(), resolution: 64, max_error: 0.005, upload_ms: most, timeout_ms: most }
    }
}

impl Options {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms).min(TIMEOUT)
    }
}

/// A request with its upload, which was neither too large nor too slow.
struct Asked {
    options: Options,
    upload: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let Query(options) = Query::<Options>::try_from_uri(request.uri()).map_err(IntoResponse::into_response)?;
        let limit = Duration::from_millis(options.upload_ms).min(TIMEOUT);
        let upload = tokio::time::timeout(limit, Bytes::from_request(request, state)).await;
        let late = |_| (StatusCode::REQUEST_TIMEOUT, "the upload took too long\n").into_response();
        let upload = upload.map_err(late)?.map_err(IntoResponse::into_response)?;
        Ok(Self { options, upload })
    }
}

/// Why the request is refused.
struct Refusal(StatusCode, String);

impl Refusal {
    fn busy(reason: &str) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, reason.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted => Self::busy("stopped: the work took too long, or the service is ending"),
            Error::Memory { .. } => Self::busy(&error.to_string()),
            other => Self(StatusCode::BAD_REQUEST, other.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

/// Runs the work of requests.
#[derive(Clone)]
struct Workers {
    places: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
}

/// Ends the work of a request when nobody waits for it any more.
struct CancelOnDrop(CancellationToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Workers {
    /// Runs `work` on its own thread until it ends, at most for `limit`; stops it early if the service ends or the client has gone away.
    async fn run<T: Send + 'static>(
        mut self,
        limit: Duration,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _place = match tokio::time::timeout(limit, self.places.acquire()).await {
            Ok(place) => place.expect("the places are never closed"),
            Err(_) => return Err(Refusal::busy("all workers are busy")),
        };
        let token = CancellationToken::with_timeout(limit);
        let _cancel = CancelOnDrop(token.clone());
        let limited = token.clone();
        let mut worker = tokio::task::spawn_blocking(move || limited.run(work));
        let end = async {
            let _ = self.ending.wait_for(|ending| *ending).await;
        };
        let done = tokio::select! {
            done = &mut worker => done,
            () = end => {
                token.cancel();
                worker.await
            }
        };
        let panicked = |_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the work panicked".into());
        Ok(done.map_err(panicked)??)
    }
}

/// Turns a mesh file into compressed coefficients.
async fn compress(State(workers): State<Workers>, Asked { options, upload }: Asked) -> Result<Vec<u8>, Refusal> {
    let format: MeshFormat = options.format.parse()?;
    if options.resolution > MOST_RESOLUTION {
        let expected = format!("at most {MOST_RESOLUTION}");
        return Err(Error::argument("the request", "resolution", options.resolution, expected).into());
    }
    let work = move || {
        let grid = SdfGrid::from_mesh(&Mesh::from_bytes(&upload, format)?, options.resolution)?;
        grid.encode(&WaveletConfig::new().threshold(Threshold::Lossless))?.compress(options.max_error)
    };
    workers.run(options.timeout(), work).await
}

/// Turns compressed coefficients into a PLY file.
async fn mesh(State(workers): State<Workers>, Asked { options, upload }: Asked) -> Result<Vec<u8>, Refusal> {
    let work = move || SparseWavelet::decompress(&upload)?.decode()?.to_mesh()?.to_bytes(MeshFormat::Ply);
    workers.run(options.timeout(), work).await
}

async fn elsewhere() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "known: GET /health, POST /compress, POST /mesh".into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let (end, ending) = watch::channel(false);
    let routes = Router::new()
        .route("/health", get("ok\n"))
        .route("/compress", post(compress))
        .route("/mesh", post(mesh))
        .fallback(elsewhere)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Workers { places: Arc::new(Semaphore::new(PLACES)), ending });

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        end.send_replace(true);
    };
    axum::serve(listener, routes).with_graceful_shutdown(stop).await?;
    println!("stopped");
    Ok(())
}
