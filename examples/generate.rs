//! Generates shapes with a trained generator and writes them as meshes. If `mpirun`, `srun` or torchrun starts it, each process draws its
//! share.
//!
//!     cargo run --release --example generate -- --model runs/shapes/generator.safetensors --count 8 --class chair --seed 1 --out generated

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use wavemesh::diffusion::Sampler;
use wavemesh::distributed::ProcessGroup;
use wavemesh::train::{GenerateOptions, Generator};
use wavemesh::{Error, Result};

struct Arguments {
    model: PathBuf,
    count: usize,
    seed: u64,
    steps: usize,
    class: Option<String>,
    guidance: Option<f64>,
    out: PathBuf,
    format: String,
}

const USAGE: &str = "--model FILE [--count 8] [--class NAME] [--guidance 1.0] [--seed 0] [--steps 50] [--out generated] [--format obj|stl|ply|off|glb]";

fn arguments() -> Result<Arguments> {
    let mut all = Arguments {
        model: "runs/shapes/generator.safetensors".into(),
        count: 8,
        seed: 0,
        steps: 50,
        class: None,
        guidance: None,
        out: "generated".into(),
        format: "obj".into(),
    };
    let mut list = std::env::args().skip(1);
    while let Some(flag) = list.next() {
        let value = list.next();
        let wrong =
            |got: String| Error::Argument { op: "generate", name: "the arguments", got, expected: USAGE.into() };
        let value = value.ok_or_else(|| wrong(format!("{flag} without a value")))?;
        let number = || value.parse::<usize>().map_err(|_| wrong(format!("{flag} {value}")));
        match flag.as_str() {
            "--model" => all.model = value.into(),
            "--count" => all.count = number()?,
            "--seed" => all.seed = number()? as u64,
            "--steps" => all.steps = number()?,
            "--class" => all.class = Some(value),
            "--guidance" => {
                all.guidance = Some(value.parse().map_err(|_| wrong(format!("{flag} {value}")))?);
            }
            "--out" => all.out = value.into(),
            "--format" => all.format = value,
            _ => return Err(wrong(flag)),
        }
    }
    Ok(all)
}

fn run() -> Result<()> {
    let Arguments { model, count, seed, steps, class, guidance, out, format } = arguments()?;
    let group = ProcessGroup::from_environment()?;
    let generator = Generator::load(&model, &group.local_device()?)?;
    std::fs::create_dir_all(&out).map_err(Error::io(&out))?;
    for i in group.share(count) {
        let started = Instant::now();
        let sampler = Sampler::Ddim { steps, eta: 1.0 };
        let mut options = GenerateOptions::new().sampler(sampler).guidance_scale(guidance).seed(seed + i as u64);
        options.class.clone_from(&class);
        let Some(shape) = generator.generate(1, &options)?.pop() else { continue };
        let seconds = started.elapsed().as_secs_f64();
        let path = out.join(format!("shape-{:04}.{format}", seed + i as u64));
        match shape.to_mesh() {
            Ok(mesh) => {
                mesh.save(&path)?;
                let closed = if mesh.is_watertight() { "watertight" } else { "open" };
                let parts = mesh.components().len();
                println!(
                    "{}  {} triangles, {closed}, {parts} part(s), {seconds:.2} s",
                    path.display(),
                    mesh.faces().len()
                );
            }
            Err(error) => eprintln!("seed {}: no surface: {error}", seed + i as u64),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    wavemesh::let_candle_rest();
    wavemesh::keep_freed_memory();
    if let Err(error) = stop_on_ctrl_c() {
        eprintln!("Ctrl-C will end the program at once: {error}");
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes Ctrl-C stop the work between two steps.
fn stop_on_ctrl_c() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])?;
    std::thread::spawn(move || signals.forever().for_each(|_| wavemesh::task::interrupt()));
    Ok(())
}
