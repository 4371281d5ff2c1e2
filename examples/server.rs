//! A service that compresses meshes over HTTP: many requests at once, limits on size and time, a clean stop.
//!
//!     cargo run --release --example server -- 127.0.0.1:8080
//!     curl --data-binary @bunny.obj '127.0.0.1:8080/compress?format=obj&resolution=64&max_error=0.005' -o bunny.wmz
//!     curl --data-binary @bunny.wmz '127.0.0.1:8080/mesh' -o bunny.ply
//!
//! | answer | when |
//! | --- | --- |
//! | 200 | the bytes that were asked for |
//! | 400 | the upload or an argument is wrong; the body says what was met and what is expected |
//! | 404 | another path |
//! | 413 | an upload above 32 MB |
//! | 503 | the work took longer than `timeout_ms` (10 s unless the request says less), or the service is stopping |
//!
//! Each request runs under a `CancellationToken` of its own, so that one that is too slow stops alone. On SIGTERM or Ctrl-C the service
//! takes no more requests, stops what runs, answers, and ends. The HTTP is tiny_http's: an example should not need an
//! asynchronous runtime for work that occupies a thread anyway.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tiny_http::{Method, Request, Response, Server};
use wavemesh::Result;
use wavemesh::mesh::MeshFormat;
use wavemesh::prelude::*;
use wavemesh::task::CancellationToken;

/// The largest upload, in bytes.
const MOST_BYTES: u64 = 32 << 20;
/// The finest grid that is made for a stranger.
const MOST_RESOLUTION: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(10);
const WORKERS: usize = 4;

/// What is sent back: a status and a body.
struct Answer(u16, Vec<u8>);

impl Answer {
    fn text(status: u16, text: impl Into<String>) -> Self {
        Self(status, text.into().into_bytes())
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted => Self::text(503, "stopped: the work took too long, or the service is ending\n"),
            Error::Memory { .. } => Self::text(503, format!("{error}\n")),
            other => Self::text(400, format!("{other}\n")),
        }
    }
}

/// The tokens of the requests that run, so that the end of the service stops them.
#[derive(Default)]
struct Running {
    tokens: Mutex<Vec<CancellationToken>>,
    ending: AtomicBool,
}

impl Running {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<CancellationToken>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` under a token that the service's end cancels.
    fn limited<T>(&self, limit: Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let token = CancellationToken::with_timeout(limit);
        self.list().push(token.clone());
        if self.ending.load(Ordering::SeqCst) {
            token.cancel();
        }
        let result = token.run(work);
        self.list().retain(|other| !other.is(&token));
        result
    }

    fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.list().iter().for_each(CancellationToken::cancel);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Arc::new(Server::http(&address)?);
    let running = Arc::new(Running::default());
    println!("listening on {}", server.server_addr());

    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (server, running) = (server.clone(), running.clone());
            std::thread::spawn(move || {
                // `recv` fails once for each `unblock`.
                while let Ok(request) = server.recv() {
                    answer(request, &running);
                }
            })
        })
        .collect();

    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    signals.forever().next();
    running.end();
    workers.iter().for_each(|_| server.unblock());
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")?;
    }
    println!("stopped");
    Ok(())
}

fn answer(mut request: Request, running: &Running) {
    let (path, query) = {
        let url = request.url();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        (path.to_owned(), query.to_owned())
    };
    let Answer(status, body) = match (request.method(), path.as_str()) {
        (Method::Get, "/health") => Answer::text(200, "ok\n"),
        (Method::Post, "/compress") => upload(&mut request)
            .and_then(|bytes| Ok(compress(&bytes, &Query(&query), running)?))
            .unwrap_or_else(|refused| refused),
        (Method::Post, "/mesh") => upload(&mut request)
            .and_then(|bytes| Ok(mesh(&bytes, &Query(&query), running)?))
            .unwrap_or_else(|refused| refused),
        _ => Answer::text(404, "known: GET /health, POST /compress, POST /mesh\n"),
    };
    // A client that has gone away is none of our business.
    let _ = request.respond(Response::from_data(body).with_status_code(status));
}

/// The request's body, if it is not too large.
fn upload(request: &mut Request) -> Result<Vec<u8>, Answer> {
    let too_large = || Answer::text(413, format!("uploads may have up to {MOST_BYTES} bytes\n"));
    if request.body_length().is_some_and(|length| length as u64 > MOST_BYTES) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let read = request.as_reader().take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Answer::text(400, format!("the upload broke off: {error}\n")))?;
    if bytes.len() as u64 > MOST_BYTES { Err(too_large()) } else { Ok(bytes) }
}

/// `a=1&b=2`.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get<T: std::str::FromStr>(&self, name: &'static str, default: T, expected: &str) -> Result<T> {
        let found = self.0.split('&').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name);
        let Some((_, value)) = found else { return Ok(default) };
        value.parse().map_err(|_| Error::argument("the request", name, format!("`{value}`"), expected))
    }

    fn timeout(&self) -> Result<Duration> {
        let limit = self.get("timeout_ms", TIMEOUT.as_millis() as u64, "milliseconds")?;
        Ok(Duration::from_millis(limit).min(TIMEOUT))
    }
}

/// A mesh file to compressed coefficients.
fn compress(bytes: &[u8], query: &Query, running: &Running) -> Result<Answer> {
    let format = query.get("format", MeshFormat::Obj, "one of obj, stl, ply, off, glb")?;
    let resolution = query.get("resolution", 64, "a number of samples")?;
    let max_error = query.get("max_error", 0.005, "a distance")?;
    if resolution > MOST_RESOLUTION {
        let expected = format!("at most {MOST_RESOLUTION}");
        return Err(Error::argument("the request", "resolution", resolution, expected));
    }
    running.limited(query.timeout()?, || {
        let grid = SdfGrid::from_mesh(&Mesh::from_bytes(bytes, format)?, resolution)?;
        let coefficients = grid.encode(&WaveletConfig::new().threshold(Threshold::Lossless))?;
        Ok(Answer(200, coefficients.compress(max_error)?))
    })
}

/// Compressed coefficients to a PLY file.
fn mesh(bytes: &[u8], query: &Query, running: &Running) -> Result<Answer> {
    running.limited(query.timeout()?, || {
        let mesh = SparseWavelet::decompress(bytes)?.decode()?.to_mesh()?;
        Ok(Answer(200, mesh.to_bytes(MeshFormat::Ply)?))
    })
}
