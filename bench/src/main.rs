//! WaveMesh's side of `bench/run.sh`: prepares a case, runs it on request, and returns its answer.
//!
//! Requests arrive as JSON lines on stdin, replies leave as JSON lines on stdout, arrays travel in safetensors files.
//! `bench/harness/worker.py` is the same program for the peers. A suite is one file here: a function `prepare(&Case) -> Result<Work>`,
//! named in [`prepare`] below.

mod backbones;
mod diffusion;
mod display;
mod geometry;
mod limits;
mod memory;
mod mesh;
mod points;
mod resident;
mod shares;
mod sparse;
mod spunet;
mod unet;
mod wavelet;
mod work;

use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use work::{Case, Result, Work};

/// Calls the `prepare` of the suite's file.
fn prepare(case: &Case) -> Result<Work> {
    match case.suite.as_str() {
        "backbones" => backbones::prepare(case),
        "diffusion" => diffusion::prepare(case),
        "display" => display::prepare(case),
        "limits" => limits::prepare(case),
        "memory" => memory::prepare(case),
        "mesh" => mesh::prepare(case),
        "points" => points::prepare(case),
        "sdf" | "isosurface" => geometry::prepare(case),
        "sparse" => sparse::prepare(case),
        "spunet" => spunet::prepare(case),
        "unet" => unet::prepare(case),
        "wavelet" | "codec" => wavelet::prepare(case),
        other => Err(format!("no suite `{other}` in bench/src/main.rs").into()),
    }
}

/// The requests of the harness.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request {
    /// Loads the inputs and gets ready; nothing here is measured.
    Prepare { suite: String, op: String, params: Value, inputs: PathBuf },
    /// Runs once and saves the answer.
    Answer { path: PathBuf },
    /// Runs `repeat` times, with one more run before the clock starts if `awake` is set; replies with the mean time in seconds.
    Sample { repeat: usize, awake: bool },
    /// Runs once. What the run leaves behind, such as kernel maps, then counts as memory held before.
    Warm,
    /// Replies with the most memory that the run of `Answer` held, in bytes, above what was held before it.
    Memory,
}

#[derive(Default)]
struct Worker {
    work: Option<Work>,
    resident_before: u64,
    peak: u64,
}

impl Worker {
    fn work(&mut self) -> Result<&mut Work> {
        self.work.as_mut().ok_or_else(|| "nothing is prepared yet".into())
    }

    fn reply(&mut self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::Prepare { suite, op, params, inputs } => {
                self.work = Some(prepare(&Case::load(suite, op, params, &inputs)?)?);
                self.resident_before = resident::reset_peak();
                json!({})
            }
            Request::Answer { path } => {
                let work = self.work()?;
                let seconds = work.run(1)?;
                // Measured here, because the arrays of the answer are not part of the work.
                let peak = resident::peak();
                let answer = work.answer()?;
                answer.save(&path)?;
                self.peak = peak;
                json!({ "seconds": seconds, "facts": answer.facts })
            }
            Request::Sample { repeat, awake } => {
                let work = self.work()?;
                if awake {
                    work.run(1)?;
                }
                json!({ "seconds": work.run(repeat)? })
            }
            Request::Warm => {
                self.work()?.warm()?;
                self.resident_before = resident::reset_peak();
                json!({})
            }
            Request::Memory => json!({ "above": self.peak.saturating_sub(self.resident_before) }),
        })
    }
}

fn main() -> std::io::Result<()> {
    wavemesh::let_candle_rest();
    wavemesh::keep_freed_memory();
    let mut worker = Worker::default();
    let mut stdout = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let reply = serde_json::from_str(&line?).map_err(Into::into).and_then(|request| worker.reply(request));
        let reply = reply.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(stdout, "{reply}")?;
        stdout.flush()?;
    }
    Ok(())
}
