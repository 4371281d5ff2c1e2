//! WaveMesh's side of `bench/run.sh`: prepares a case, runs it when it is told to, and hands back its answer.
//!
//! Requests come as JSON lines on stdin, replies go as JSON lines to stdout, arrays travel in safetensors files.
//! `bench/harness/worker.py` is the same program for the peers. A suite is one file here: a function
//! `prepare(&Case) -> Result<Work>`, named in [`prepare`] below.

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

/// Finds the suite's file.
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

/// What the harness can ask for.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request {
    /// Load the inputs and get ready; nothing that is measured happens here.
    Prepare { suite: String, op: String, params: Value, inputs: PathBuf },
    /// Run once and save the answer.
    Answer { path: PathBuf },
    /// Run `repeat` times, if `awake` once more before the clock starts; the reply is the mean time in seconds.
    Sample { repeat: usize, awake: bool },
    /// Run once; what stays of the run, such as kernel maps, then counts as held before.
    Warm,
    /// The most memory that the run of `Answer` held, in bytes, above what was held before it.
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
                // Taken here, because the arrays of the answer are no part of the work.
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
