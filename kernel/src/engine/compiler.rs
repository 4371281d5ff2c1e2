//! Answers evcxr's calls of cargo and rustc: a cell is one rustc command.
//!
//! Types of new variables come from the same build: `drop(&x)` makes rustc warn of "argument has type `&T`", with a path that
//! is valid at the root of the next cell. So nothing is analysed twice and rust-analyzer is not waited for.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::cell::{Cell, words};
use super::deps::{self, Dependencies};
use super::library::{self, Bundle};
use super::pipes::Pipes;
use super::shim::{Answer, Call, RECORDER};
use super::toolchain::Toolchain;
use super::weave::{Bound, Loaded, Place, Type, Variable, Weave, Woven};
use super::{Output, progress};

/// Compiles cells for evcxr.
pub struct Compiler {
    pub toolchain: Toolchain,
    pub bundle: Option<Bundle>,
    pub runtime: PathBuf,
    pub folder: PathBuf,
    pipes: Arc<Pipes>,
    /// The process group of the compiler that runs now, or 0.
    group: AtomicI32,
    interrupted: AtomicBool,
    state: Mutex<State>,
}

/// A cell that was run, for reports about its lines.
pub struct Run {
    pub number: u32,
    pub id: u64,
    pub cell: Cell,
}

#[derive(Default)]
struct State {
    /// Of earlier cells, by name; those that are gone too, with the reason.
    variables: BTreeMap<String, Variable>,
    /// What this cell binds, and what it takes of earlier cells.
    bound: Vec<Bound>,
    loaded: Vec<Loaded>,
    /// Variables that are lost when this cell runs, because their type becomes another one.
    lost: Vec<String>,
    /// The items of earlier cells on which the layout of a type may rest, by name.
    types: BTreeMap<String, String>,
    cells: Vec<Arc<Run>>,
    dependencies: Dependencies,
    new_dependencies: bool,
    builds: u64,
    /// This cell's builds so far.
    times: Vec<Build>,
    offline: bool,
    /// The last cell did not compile: it is kept for its report only.
    last_failed: bool,
}

impl State {
    /// The cell, or a new build of a crate, defines these names anew. Variables whose type rests on one of them are lost: rustc takes two
    /// types of one name for the same one, and would read the old value with the new layout.
    fn define_anew(&mut self, mut anew: Vec<String>) {
        let mut done = 0;
        while let Some(name) = anew.get(done) {
            let resting = self.types.iter().filter(|(_, text)| words(text).any(|word| word == name));
            let more: Vec<String> = resting.map(|(name, _)| name.clone()).filter(|name| !anew.contains(name)).collect();
            anew.extend(more);
            done += 1;
        }
        let rests =
            |ty: &Type| matches!(ty, Type::Known(ty) if words(ty).any(|word| anew.iter().any(|name| name == word)));
        let lost = self.variables.values().filter(|variable| rests(&variable.ty)).map(|variable| variable.name.clone());
        self.lost.extend(lost.collect::<Vec<_>>());
        self.loaded.retain(|loaded| !self.lost.contains(&loaded.name));
    }

    /// The items of the last cell are defined.
    fn define_types(&mut self) {
        if let Some(run) = self.cells.last() {
            self.types.extend(run.cell.types.iter().map(|item| (item.name.clone(), item.text.clone())));
        }
    }
}

impl Compiler {
    pub fn new(toolchain: Toolchain, bundle: Option<Bundle>, folder: PathBuf, pipes: Arc<Pipes>) -> Result<Compiler> {
        let runtime = library::runtime(&toolchain)?;
        std::fs::create_dir_all(folder.join("b"))?;
        Ok(Compiler {
            toolchain,
            bundle,
            runtime,
            folder,
            pipes,
            group: AtomicI32::new(0),
            interrupted: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// The path of the macro that shows the value that ends a cell.
    pub fn show_macro(&self) -> &'static str {
        if self.has_library() { "wavemesh::notebook::show" } else { "wavemesh_cell::show" }
    }

    fn has_library(&self) -> bool {
        self.bundle.is_some()
    }

    /// rustc's arguments for the crates that cells are linked with now.
    pub fn extern_args(&self) -> Vec<String> {
        let dependencies = self.state().dependencies.clone();
        self.externs(&dependencies)
    }

    fn externs(&self, dependencies: &Dependencies) -> Vec<String> {
        let mut args = vec![format!("--extern=wavemesh_cell={}", self.runtime.display())];
        args.extend(self.bundle.iter().flat_map(library::link_args));
        args.extend_from_slice(&dependencies.rustc_args);
        args
    }

    /// The names of these crates.
    pub fn crates(&self) -> Vec<String> {
        let state = self.state();
        let lines = state.dependencies.lines.iter();
        let mut names: Vec<String> =
            lines.filter_map(|line| Some(line.split_once('=')?.0.trim().replace('-', "_"))).collect();
        names.push("wavemesh_cell".to_owned());
        names.extend(self.bundle.iter().map(|_| "wavemesh".to_owned()));
        names.sort();
        names.dedup();
        names
    }

    /// What follows is about this cell.
    pub fn begin_cell(&self, number: u32, run: u64, mut cell: Cell) {
        let mut state = self.state();
        let bound = cell.placeholders.iter().map(|placeholder| Bound {
            marker: placeholder.marker.clone(),
            variable: Variable {
                name: placeholder.variable.clone(),
                mutable: placeholder.mutable,
                cell: number,
                ty: Type::Pending,
            },
            written: false,
        });
        state.bound = bound.collect();
        let wanted = state.variables.values().filter(|variable| cell.wants(&variable.name));
        let loaded = wanted.filter_map(|variable| match &variable.ty {
            Type::Known(ty) => {
                Some(Loaded { name: variable.name.clone(), mutable: variable.mutable, ty: ty.clone(), kept: true })
            }
            _ => None,
        });
        state.loaded = loaded.collect();
        state.lost.clear();
        let anew = cell.types.iter().filter(|item| state.types.get(&item.name).is_some_and(|text| *text != item.text));
        let anew = anew.map(|item| item.name.clone()).collect();
        state.define_anew(anew);
        // Of a cell that is kept for reports these are needed no more.
        cell.wanted = HashSet::new();
        state.times.clear();
        if state.last_failed {
            state.cells.pop();
            state.last_failed = false;
        }
        state.cells.push(Arc::new(Run { number, id: run, cell }));
        self.interrupted.store(false, Ordering::SeqCst);
    }

    /// The cell ran. What it moved away is gone; what it bound is there for later cells if it ended well, or told of if it cannot be.
    pub fn cell_ran(&self, ended_well: bool) {
        let mut state = self.state();
        let number = state.cells.last().map_or(0, |run| run.number);
        for loaded in std::mem::take(&mut state.loaded).iter().filter(|loaded| !loaded.kept) {
            if let Some(variable) = state.variables.get_mut(&loaded.name) {
                variable.ty = Type::Moved(number);
            }
        }
        for name in std::mem::take(&mut state.lost) {
            if let Some(variable) = state.variables.get_mut(&name) {
                variable.ty = Type::Redefined(number);
                self.pipes.send(Output::Stderr(format!("note: `{name}` is lost: its type was defined anew.\n")));
            }
        }
        state.define_types();
        let bound = std::mem::take(&mut state.bound);
        for Bound { variable, .. } in bound.into_iter().filter(|_| ended_well) {
            if let Type::Fleeting(reason) = &variable.ty {
                let text = format!("note: `{}` lives in this cell only: {reason}.\n", variable.name);
                self.pipes.send(Output::Stderr(text));
            }
            if variable.ty != Type::Pending {
                state.variables.insert(variable.name.clone(), variable);
            }
        }
    }

    /// Variables that the cell wanted are lost; it can be built again without them.
    pub fn lose(&self, names: &[&str]) {
        let mut state = self.state();
        state.variables.retain(|name, _| !names.contains(&name.as_str()));
        state.loaded.retain(|loaded| !names.contains(&loaded.name.as_str()));
    }

    /// The process that held the variables is gone.
    pub fn lose_all(&self) {
        let mut state = self.state();
        state.variables.clear();
        state.define_types();
    }

    /// The cell did not compile, so it left no items behind.
    pub fn cell_failed(&self) {
        self.state().last_failed = true;
    }

    /// Everything was cleared.
    pub fn forget_everything(&self) {
        let mut state = self.state();
        state.variables.clear();
        state.types.clear();
        state.cells.clear();
    }

    /// Variables that later cells can use, and their types, sorted by name.
    pub fn stored_variables(&self) -> Vec<(String, String)> {
        let known = |variable: &Variable| match &variable.ty {
            Type::Known(ty) => Some((variable.name.clone(), ty.clone())),
            _ => None,
        };
        self.state().variables.values().filter_map(known).collect()
    }

    /// Every variable of earlier cells, those that are gone included.
    pub fn variables(&self) -> Vec<Variable> {
        let state = self.state();
        let number = state.cells.last().map_or(0, |run| run.number);
        let mut variables: Vec<Variable> = state.variables.values().cloned().collect();
        for variable in variables.iter_mut().filter(|variable| state.lost.contains(&variable.name)) {
            variable.ty = Type::Redefined(number);
        }
        variables
    }

    /// Cells whose items are defined, oldest first: all but the last if that did not compile.
    pub fn defining_cells(&self) -> Vec<Arc<Run>> {
        let state = self.state();
        let count = state.cells.len() - usize::from(state.last_failed && !state.cells.is_empty());
        state.cells[..count].to_vec()
    }

    /// Cells that were built, oldest first.
    pub fn cells(&self) -> Vec<Arc<Run>> {
        self.state().cells.clone()
    }

    /// How long each build of this cell took.
    pub fn builds(&self) -> Vec<Build> {
        self.state().times.clone()
    }

    /// Stops the compiler that runs now, and every other that this cell would start. True if one ran.
    pub fn interrupt(&self) -> bool {
        self.interrupted.store(true, Ordering::SeqCst);
        let group = Pid::from_raw(self.group.load(Ordering::SeqCst));
        group.is_some_and(|group| kill_process_group(group, Signal::KILL).is_ok())
    }

    /// Answers a call of a tool.
    pub fn answer(&self, call: Call) -> Answer {
        let words: Vec<&str> = call.args.iter().map(String::as_str).collect();
        match (call.tool.as_str(), words.as_slice()) {
            ("rustup", ["which", tool]) => Answer::ok(format!("{}\n", self.folder.join("bin").join(tool).display())),
            ("rustup", _) => Answer::failed("the toolchain of a kernel is fixed\n"),
            ("rustc", ["-Vv" | "-vV"]) => Answer::ok(format!("{}\n", self.toolchain.version)),
            ("rustc", ["--print", "target-libdir"]) => Answer::ok(format!("{}\n", self.toolchain.libdir.display())),
            // No answer keeps rust-analyzer from loading the standard library before each first cell.
            ("rustc", [.., "--print", _] | [.., "--print", _, _]) => Answer::failed(""),
            ("rustc", _) => self.real(&self.toolchain.rustc, call.args),
            (RECORDER, [_, ..]) => match deps::record(&self.folder.join("deps"), &call.args[1..]) {
                Ok(()) => self.real(Path::new(&call.args[0].clone()), call.args[1..].to_vec()),
                Err(error) => Answer::failed(format!("cannot record the arguments of rustc: {error}\n")),
            },
            ("cargo", args) => self.answer_cargo(args, &call),
            _ => Answer::failed("unknown tool\n"),
        }
    }

    fn answer_cargo(&self, args: &[&str], call: &Call) -> Answer {
        let command = args.iter().find(|arg| !arg.starts_with('-')).copied().unwrap_or_default();
        let manifest = std::fs::read_to_string(call.cwd.join("Cargo.toml")).unwrap_or_default();
        match command {
            "build" | "check" => match self.build(&call.cwd, &manifest, command == "build") {
                Ok(answer) => answer,
                Err(error) => Answer::failed(format!("error: no matching package named: {error:#}\n")),
            },
            "metadata" if manifest.contains("evcxr_dummy_validate_dep") => {
                self.real(&self.toolchain.cargo, call.args.clone())
            }
            "metadata" => Answer::ok(self.metadata(&manifest)),
            "clean" => Answer::ok(""),
            _ => Answer::failed(""),
        }
    }

    fn real(&self, program: &Path, args: Vec<String>) -> Answer {
        let path = self.toolchain.original_path().map(|path| path.to_string_lossy().into_owned());
        Answer::Become { program: program.to_owned(), args, path, rustc: self.toolchain.rustc.clone() }
    }

    /// The least that rust-analyzer accepts of `cargo metadata`: the cell's crate alone.
    fn metadata(&self, manifest: &str) -> String {
        let root = self.folder.join("evcxr");
        let id = format!("path+file://{}#ctx@1.0.0", root.display());
        let names: Vec<Value> = Dependencies::lines_of(manifest)
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| {
                json!({"name": name.trim(), "source": null, "req": "*", "kind": null, "rename": null, "optional": false,
                       "uses_default_features": true, "features": [], "target": null, "registry": null})
            })
            .collect();
        let target = json!({"kind": ["cdylib"], "crate_types": ["cdylib"], "name": "ctx", "src_path": root.join("src/lib.rs"),
            "edition": "2024", "doc": true, "doctest": false, "test": true});
        let package = json!({"name": "ctx", "version": "1.0.0", "id": id, "license": null, "license_file": null,
            "description": null, "source": null, "dependencies": names, "targets": [target], "features": {},
            "manifest_path": root.join("Cargo.toml"), "metadata": null, "publish": null, "authors": [], "categories": [],
            "keywords": [], "readme": null, "repository": null, "homepage": null, "documentation": null, "edition": "2024",
            "links": null, "default_run": null, "rust_version": null});
        let node = json!({"id": id, "dependencies": [], "deps": [], "features": []});
        let metadata = json!({"packages": [package], "workspace_members": [id], "workspace_default_members": [id],
            "resolve": {"nodes": [node], "root": id}, "target_directory": root.join("target"), "version": 1,
            "workspace_root": root, "metadata": null});
        format!("{metadata}\n")
    }

    fn build(&self, crate_folder: &Path, manifest: &str, link: bool) -> Result<Answer> {
        let generated = std::fs::read_to_string(crate_folder.join("src/lib.rs")).context("cannot read the cell")?;
        let opt_level = manifest
            .lines()
            .find_map(|line| line.strip_prefix("opt-level = "))
            .map_or("0", |level| level.trim().trim_matches('"'))
            .to_owned();
        let dependencies = match self.dependencies(manifest) {
            Ok(dependencies) => dependencies,
            Err(message) => {
                return Ok(Answer::Done { stdout: message_of_cargo(&message), stderr: String::new(), code: 101 });
            }
        };
        // A variable that borrows from another one or was moved away is not stored; which one that is, only the borrow checker knows.
        for _ in 0..6 {
            let (folder, woven) = self.write_build(&generated, &dependencies)?;
            let outcome = self.rustc(&folder, &opt_level, &dependencies, link)?;
            if self.interrupted.load(Ordering::SeqCst) {
                return Ok(Answer::Done { stdout: message_of_cargo("interrupted"), stderr: String::new(), code: 101 });
            }
            if outcome.success {
                let again = self.note_types(&outcome.messages, &woven);
                if again {
                    continue;
                }
                let object = folder.join("libctx.so");
                std::fs::write(crate_folder.join(".evcxr-execution-so"), object.to_string_lossy().as_bytes())?;
                return Ok(Answer::ok(""));
            }
            if !self.give_up_variables(&outcome.messages, &woven) {
                return Ok(Answer::Done { stdout: outcome.text, stderr: String::new(), code: 101 });
            }
        }
        Ok(Answer::Done {
            stdout: message_of_cargo("the cell's variables borrow from each other"),
            stderr: String::new(),
            code: 101,
        })
    }

    fn write_build(&self, generated: &str, dependencies: &Dependencies) -> Result<(PathBuf, Woven)> {
        let mut state = self.state();
        state.builds += 1;
        let folder = self.folder.join("b").join(state.builds.to_string());
        let run = state.cells.last().map(|run| run.id).unwrap_or_default();
        let named =
            dependencies.lines.iter().any(|line| line.starts_with("wavemesh ") || line.starts_with("wavemesh="));
        let prelude = (self.has_library() || named).then_some("::wavemesh::prelude");
        let woven =
            Weave { bound: &state.bound, loaded: &state.loaded, lost: &state.lost, run, prelude }.weave(generated);
        drop(state);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("lib.rs"), &woven.source)?;
        Ok((folder, woven))
    }

    fn rustc(&self, folder: &Path, opt_level: &str, dependencies: &Dependencies, link: bool) -> Result<Outcome> {
        let start = Instant::now();
        let runtime_dir = self.runtime.parent().unwrap_or(&self.folder);
        let mut command = self.toolchain.quiet("rustc");
        command
            .current_dir(folder)
            .args(["--crate-name=ctx", "--edition=2024", "--crate-type=cdylib", "lib.rs", "-olibctx.so"])
            .arg(if link { "--emit=link" } else { "--emit=metadata" })
            .args(["--error-format=json", "--json=diagnostic-rendered-ansi,timings", "--diagnostic-width=100000"])
            .arg("-Zunstable-options")
            // Types are told in full, by a lint that user code cannot turn off; other warnings are not shown.
            .args(["-Ztrim-diagnostic-paths=no", "-Awarnings", "--force-warn=dropping_references"])
            .args(["-Cmetadata=cell", "-Cprefer-dynamic", "-Cdebug-assertions=on", "-Cdebuginfo=line-tables-only"])
            .arg(format!("-Copt-level={opt_level}"))
            .arg(format!("--remap-path-prefix=lib.rs={}", folder.join("lib.rs").display()))
            .arg(format!("-Clink-arg=-Wl,-rpath,{}", runtime_dir.display()))
            .arg(format!("-Clink-arg=-Wl,-rpath,{}", self.toolchain.libdir.display()))
            .args(self.externs(dependencies))
            .process_group(0);
        let child = command.spawn().with_context(|| format!("cannot run {}", self.toolchain.rustc.display()))?;
        self.set_group(Some(child.id()));
        let output = child.wait_with_output();
        self.set_group(None);
        let output = output?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let link = link_time(&messages);
        self.state().times.push(Build { rustc: start.elapsed().saturating_sub(link), link });
        Ok(Outcome { success: output.status.success(), messages, text })
    }

    fn set_group(&self, process: Option<u32>) {
        self.group.store(process.and_then(|id| id.try_into().ok()).unwrap_or(0), Ordering::SeqCst);
        if process.is_some() && self.interrupted.load(Ordering::SeqCst) {
            self.interrupt();
        }
    }

    /// Learns the types of the variables that the cell stores. True if it must be built once more.
    fn note_types(&self, messages: &[Value], woven: &Woven) -> bool {
        let mut state = self.state();
        let mut again = false;
        for message in messages.iter().filter(|message| message["code"]["code"] == "dropping_references") {
            let spans = spans(message);
            let Some(Place::Store(name)) = spans.iter().find_map(|span| place(span, woven)) else { continue };
            let label = spans.iter().find_map(|span| span["label"].as_str()?.strip_prefix("argument has type `&"));
            let Some(ty) = label.and_then(|label| label.strip_suffix('`')) else { continue };
            let Some(bound) = state.bound.iter_mut().rev().find(|bound| bound.variable.name == *name) else { continue };
            let ty = ty.replace(BUILT_AS, CALLED);
            bound.variable.ty =
                if let Some((function, _)) = ty.split_once(" {").filter(|(function, _)| function.contains("fn(")) {
                    // A function's own type has no name; a pointer to it has.
                    again = true;
                    bound.written = true;
                    Type::Known(function.to_owned())
                } else if ty.contains('{') || ty.contains("impl ") {
                    let what = if ty.contains("{closure") {
                        "it is a closure or holds one, whose type has no name. To keep it, give it one: \
                         `let f: Box<dyn Fn(i32) -> i32> = Box::new(…)`"
                    } else {
                        "its type has no name"
                    };
                    Type::Fleeting(what.to_owned())
                } else {
                    Type::Known(ty)
                };
        }
        again
    }

    /// Gives up variables that cannot be stored because they borrow or are moved away, or not be loaded because their type cannot be
    /// named. True if that may mend every error there is.
    fn give_up_variables(&self, messages: &[Value], woven: &Woven) -> bool {
        let mut state = self.state();
        let number = state.cells.last().map_or(0, |run| run.number);
        let State { bound, loaded, variables, .. } = &mut *state;
        let mut found = false;
        for message in messages.iter().filter(|message| message["level"] == "error") {
            let spans = spans(message);
            if spans.is_empty() {
                continue;
            }
            let of_kind = |primary: bool| {
                spans.iter().filter(move |span| span["is_primary"] == primary).filter_map(|span| place(span, woven))
            };
            let stored = |place: &Place| if let Place::Store(name) = place { Some(name.clone()) } else { None };
            let code = message["code"]["code"].as_str().unwrap_or_default();
            let mut give_up = |name: &str, ty: Type| {
                let pending = |bound: &&mut Bound| bound.variable.name == name && bound.variable.ty == Type::Pending;
                let bound = bound.iter_mut().rev().find(pending);
                bound.map(|bound| bound.variable.ty = ty).is_some()
            };
            found |= match (code, of_kind(true).next()) {
                ("E0382" | "E0425", Some(Place::Store(name))) => give_up(name, Type::Moved(number)),
                ("E0381", Some(Place::Store(name))) => {
                    give_up(name, Type::Fleeting("it may not have been given a value".to_owned()))
                }
                ("E0382", Some(Place::Keep(name))) => {
                    let moved = loaded.iter_mut().find(|loaded| loaded.name == *name);
                    moved.map(|loaded| loaded.kept = false).is_some()
                }
                (_, Some(Place::Load(name))) => {
                    loaded.retain(|loaded| loaded.name != *name);
                    if let Some(variable) = variables.get_mut(name)
                        && let Type::Known(ty) = &variable.ty
                    {
                        variable.ty = Type::Fleeting(format!("its type `{ty}` cannot be named in another cell"));
                    }
                    true
                }
                ("E0597" | "E0505" | "E0716" | "E0373" | "E0521" | "E0503" | "E0506", _) => {
                    let reason = "it borrows from another variable. To keep it, make it own its data: `.clone()`, \
                                  `.to_owned()`, `.to_vec()`";
                    match of_kind(false).chain(of_kind(true)).find_map(stored) {
                        Some(name) => give_up(&name, Type::Fleeting(reason.to_owned())),
                        None => return false,
                    }
                }
                _ => return false,
            };
        }
        found
    }

    /// The crates that the manifest asks for, built if they are not.
    fn dependencies(&self, manifest: &str) -> std::result::Result<Dependencies, String> {
        let lines = Dependencies::lines_of(manifest);
        let (current, offline) = {
            let state = self.state();
            (state.dependencies.clone(), state.offline)
        };
        if current.serve(&lines) {
            return Ok(current);
        }
        let cache = library::cache_home().unwrap_or_else(|| self.folder.clone()).join("target");
        let mut bar = progress::Line::new(&self.pipes, "Building dependencies");
        let built = deps::build(
            lines,
            &self.folder.join("deps"),
            &cache,
            &self.toolchain,
            offline,
            &mut |line| bar.set(line.trim()),
            &mut |process| self.set_group(process),
        );
        bar.finish(built.is_ok());
        let built = built?;
        let mut state = self.state();
        // A local crate that is built anew may have other types; one that is there for the first time has no variables.
        let local = built.lines.iter().filter(|line| line.contains("path"));
        let local = local.filter_map(|line| Some(line.split_once('=')?.0.trim().replace('-', "_"))).collect();
        state.define_anew(local);
        state.dependencies = built.clone();
        state.new_dependencies = true;
        drop(state);
        Ok(built)
    }

    /// Whether dependencies were built since this was asked last.
    pub fn take_new_dependencies(&self) -> bool {
        std::mem::take(&mut self.state().new_dependencies)
    }

    /// `:offline`.
    pub fn set_offline(&self, offline: bool) {
        self.state().offline = offline;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Cells call the dynamic library's crate by the library's name; rustc tells its own.
pub const BUILT_AS: &str = "wavemesh_dylib::";
pub const CALLED: &str = "wavemesh::";

/// How long a build took: rustc without the linker, then the linker.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub rustc: Duration,
    pub link: Duration,
}

/// rustc says when it starts and ends linking, in microseconds.
fn link_time(messages: &[Value]) -> Duration {
    let at = |event: &str| {
        let message = messages.iter().find(|message| message["name"] == "link" && message["event"] == event)?;
        message["timestamp"].as_u64()
    };
    at("end").zip(at("start")).map_or(Duration::ZERO, |(end, start)| Duration::from_micros(end.saturating_sub(start)))
}

fn spans(message: &Value) -> &[Value] {
    message["spans"].as_array().map_or(&[][..], Vec::as_slice)
}

/// What the woven code does with a variable where a span starts.
fn place<'a>(span: &Value, woven: &'a Woven) -> Option<&'a Place> {
    woven.place(span["byte_start"].as_u64()?.try_into().ok()?)
}

struct Outcome {
    success: bool,
    messages: Vec<Value>,
    /// rustc's JSON, a message a line.
    text: String,
}

/// An error of ours in the form in which evcxr takes rustc's.
fn message_of_cargo(message: &str) -> String {
    let message =
        json!({"message": message, "code": null, "level": "error", "spans": [], "children": [], "rendered": message});
    format!("{message}\n")
}
