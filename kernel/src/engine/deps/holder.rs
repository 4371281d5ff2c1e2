//! Dynamic libraries that hold crates: each crate lives in one of them, so the process has it once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Build;
use super::cargo::Crate;

/// A dynamic library that holds crates.
#[derive(Clone, Debug)]
pub struct Holder {
    pub name: String,
    pub file: PathBuf,
    pub crates: BTreeMap<PathBuf, Crate>,
    /// Whether this library holds the runtime behind `.await`.
    pub runtime: bool,
}

/// Links the new crates as a dynamic library, which depends on the earlier ones.
pub fn hold(
    number: u64,
    crates: BTreeMap<PathBuf, Crate>,
    before: &[Holder],
    files: &BTreeMap<String, PathBuf>,
    args: &[String],
    build: &mut Build,
) -> Result<Holder, String> {
    let name = format!("wm_deps_{number}");
    let file = build.folder.join(format!("lib{name}.so"));
    let has_runtime = before.iter().any(|holder| holder.runtime);
    let runtime = !has_runtime && files.contains_key("tokio");
    let mut source = String::new();
    for (name, _) in files.iter().filter(|(_, file)| file.extension().is_some_and(|end| end == "rlib")) {
        source.push_str(&format!("pub extern crate {name};\n"));
    }
    if runtime {
        source.push_str(
            "static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {\n    \
             tokio::runtime::Builder::new_multi_thread().enable_all().build().expect(\"tokio's runtime did not start\")\n});\n\
             pub fn block_on<F: Future>(future: F) -> F::Output {\n    RUNTIME.block_on(future)\n}\n\
             pub fn enter() -> tokio::runtime::EnterGuard<'static> {\n    RUNTIME.enter()\n}\n",
        );
    }
    let path = build.folder.join(format!("{name}.rs"));
    std::fs::write(&path, source).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    (build.progress)("linking");
    let mut command = build.toolchain.quiet("rustc");
    command
        .current_dir(build.folder)
        .args([
            &format!("--crate-name={name}"),
            "--edition=2024",
            "--crate-type=dylib",
            "-Cprefer-dynamic",
            "-Zunstable-options",
        ])
        .arg(&path)
        .arg("-o")
        .arg(&file)
        .args(args)
        .arg(format!("-Clink-arg=-Wl,-soname,lib{name}.so"))
        .arg(format!("-Clink-arg=-Wl,-rpath,{}", build.toolchain.libdir.display()));
    for (index, holder) in before.iter().enumerate() {
        let force = if index + 1 == before.len() { "force:" } else { "" };
        command.arg(format!("--extern={force}{}={}", holder.name, holder.file.display()));
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|error| format!("rustc did not start: {error}"))?;
    (build.started)(Some(child.id()));
    let output = child.wait_with_output();
    (build.started)(None);
    let output = output.map_err(|error| format!("rustc did not end: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the crates cannot be linked as one library:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(Holder { name, file, crates, runtime })
}
