//! Compiles cells: the notebook's definitions when they change, and the statements of each cell as a library of its own.
//!
//! What rustc alone knows, it is asked by building: the type of a variable is told in a warning of `drop(&x)`, with a path that is valid
//! in the next cell; that a variable was moved away, or borrows from another, is an error at the place where it would be stored, and
//! the cell is built again without that. An error in an item of another cell tells that this item is stale.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use serde_json::Value;
use wavemesh_cell::protocol::Report;

use super::body::{Body, Place, Woven, levels};
use super::cell::{Cell, Part, Run, words};
use super::definitions::{Definitions, Left, Library, Stale};
use super::deps::{self, Dependencies};
use super::library::{self, Bundle};
use super::pipes::Pipes;
use super::rustc::{Build, Job, Rustc, place_in, spans};
use super::toolchain::Toolchain;
use super::variables::{Bound, Fate, Loaded, State as VariableState, Variable};
use super::{Output, progress};

/// Compiles the cells of one notebook.
pub struct Compiler {
    pub toolchain: Toolchain,
    pub bundle: Option<Bundle>,
    pub runtime: PathBuf,
    pub folder: PathBuf,
    /// The notebook's own, where files that it names are looked for.
    home: PathBuf,
    pipes: Arc<Pipes>,
    rustc: Rustc,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of earlier cells, by name; those that are gone too, with the reason.
    variables: BTreeMap<String, Variable>,
    definitions: Definitions,
    /// Variables that are still in the store and must not be used any more.
    forgotten: Vec<String>,
    /// What the running cell binds and has loaded.
    running: Option<Running>,
    runs: Vec<Arc<Run>>,
    dependencies: Dependencies,
    new_dependencies: bool,
    builds: u64,
    /// This cell's builds so far.
    times: Vec<Build>,
    offline: bool,
}

struct Running {
    number: u32,
    bound: Vec<Bound>,
    types: BTreeMap<usize, String>,
    loaded: Vec<Loaded>,
}

/// A cell to compile.
pub struct Order<'a> {
    pub source: &'a str,
    /// As in `In [3]`.
    pub number: u32,
    /// Unlike that of every other run.
    pub id: u64,
    pub opt_level: &'a str,
    /// Whether the value that ends the cell is shown.
    pub show: bool,
    /// What the frontend calls the cell.
    pub cell: Option<&'a str>,
    /// Cells that the frontend has removed.
    pub deleted: &'a [String],
}

/// Why a cell was not compiled.
#[derive(Debug)]
pub enum Failed {
    /// rustc refuses this part of it.
    Refused(Vec<Value>, Part),
    /// It was asked to stop.
    Interrupted,
    /// Something else, for people.
    Other(String),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Failed {
        Failed::Other(format!("{error:#}"))
    }
}

/// What the child is to run.
pub struct Object {
    pub library: PathBuf,
    pub function: String,
    /// Tells this run of a cell from every other.
    pub run: u64,
}

impl Compiler {
    pub fn new(toolchain: Toolchain, bundle: Option<Bundle>, folder: PathBuf, pipes: Arc<Pipes>) -> Result<Compiler> {
        let runtime = library::runtime(&toolchain)?;
        std::fs::create_dir_all(folder.join("definitions"))?;
        std::fs::create_dir_all(folder.join("b"))?;
        let search =
            [runtime.parent().map(Path::to_owned), Some(toolchain.libdir.clone()), Some(folder.join("definitions"))];
        Ok(Compiler {
            rustc: Rustc::new(toolchain.clone(), search.into_iter().flatten().collect()),
            toolchain,
            bundle,
            runtime,
            home: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            folder,
            pipes,
            state: Mutex::default(),
        })
    }

    fn show_macro(&self) -> &'static str {
        if self.bundle.is_some() { "::wavemesh::notebook::show" } else { "::wavemesh_cell::show" }
    }

    /// rustc's arguments for the crates that cells are linked with now, the notebook's definitions included.
    pub fn extern_args(&self) -> Vec<String> {
        let (dependencies, library) = {
            let state = self.state();
            (state.dependencies.clone(), state.definitions.library.clone())
        };
        let mut args = self.externs(&dependencies);
        args.extend(library.map(|library| format!("--extern=ctx={}", library.file.display())));
        args
    }

    fn externs(&self, dependencies: &Dependencies) -> Vec<String> {
        let mut args = vec![format!("--extern=wavemesh_cell={}", self.runtime.display())];
        // The definitions need it too, whichever crate is loaded first.
        args.extend(self.runtime.parent().map(|folder| format!("-Ldependency={}", folder.display())));
        args.extend(self.bundle.iter().flat_map(library::link_args));
        args.extend_from_slice(&dependencies.rustc_args);
        args
    }

    /// The names of these crates.
    pub fn crates(&self) -> Vec<String> {
        let state = self.state();
        let mut names: Vec<String> = state.dependencies.names();
        names.push("wavemesh_cell".to_owned());
        names.extend(self.bundle.iter().map(|_| "wavemesh".to_owned()));
        names.sort();
        names.dedup();
        names
    }

    /// Compiles a cell. Its items are defined then; `None` when it does nothing more.
    pub fn compile(&self, order: &Order) -> Result<Option<Object>, Failed> {
        self.rustc.begin();
        let before = {
            let mut state = self.state();
            state.times.clear();
            state.running = None;
            state.definitions.clone()
        };
        let cell = Cell::parse(order.source, &self.home, &|name| before.macro_rules(name));
        let dependencies = self.dependencies(cell.awaits, order.number)?;
        // Crates that were built anew take what stands on them with them.
        let before = if before.library.is_some() { self.state().definitions.clone() } else { before };
        let run = self.new_run(order);
        let items = cell.items.clone();
        let mut definitions = before.with(&run, items, order.cell, order.deleted);
        let mut anew = Vec::new();
        let is_compiled = before.library.is_some() || before.is_empty();
        if is_compiled && definitions.same_items(&before) {
            definitions.library = before.library.clone();
        } else {
            anew = self.define(&mut definitions, &run, order, &dependencies)?;
        }
        // Variables whose type is another one now are lost: the store would take the old value for one of the new layout.
        let reshaped = before.reshaped_in(&definitions);
        let lost: Vec<String> = {
            let state = self.state();
            let stored = state.variables.values().filter(|variable| variable.state == VariableState::Stored);
            let rests = |variable: &&Variable| own_names(&variable.ty).any(|name| reshaped.contains(name));
            stored.filter(rests).map(|variable| variable.name.clone()).collect()
        };
        let object = if cell.statements.is_empty() {
            None
        } else {
            Some(self.compile_body(order, &run, &cell, &definitions, &dependencies, &lost)?)
        };
        self.commit(order.number, definitions, before, lost, anew);
        Ok(object)
    }

    /// The label of a run is its files' name, so it is unlike every other's.
    fn new_run(&self, order: &Order) -> Arc<Run> {
        let mut state = self.state();
        let mut label = format!("In [{}]", order.number);
        if state.runs.iter().rev().any(|run| run.label == label) {
            label = format!("{label} {}", order.id);
        }
        let run = Arc::new(Run::new(order.number, label, order.source));
        state.runs.push(Arc::clone(&run));
        run
    }

    /// The cell is compiled, so what it defines is defined.
    fn commit(&self, number: u32, definitions: Definitions, before: Definitions, lost: Vec<String>, anew: Vec<String>) {
        let mut notes = Vec::new();
        for name in &lost {
            notes.push(format!("note: `{name}` is lost: its type was defined anew."));
        }
        for path in anew {
            notes.push(format!("note: `{path}` starts anew: it was defined anew."));
        }
        let known = before.left_out();
        for left in definitions.left_out().iter().filter(|left| !known.contains(left)) {
            notes.push(left.told());
        }
        let mut state = self.state();
        for name in lost {
            if let Some(variable) = state.variables.get_mut(&name) {
                variable.state = VariableState::Redefined(number);
            }
            // The cell that runs now forgets them itself.
            if state.running.is_none() {
                state.forgotten.push(name);
            }
        }
        if state.running.is_some() {
            state.forgotten.clear();
        }
        state.definitions = definitions;
        drop(state);
        for note in notes {
            self.pipes.send(Output::Stderr(note + "\n"));
        }
    }

    /// Compiles the items of the notebook; leaves out those of other cells that no longer compile. Returns the statics that start anew.
    fn define(
        &self,
        definitions: &mut Definitions,
        run: &Arc<Run>,
        order: &Order,
        dependencies: &Dependencies,
    ) -> Result<Vec<String>, Failed> {
        let folder = self.folder.join("definitions");
        // An item may have to be left out for each one that was.
        for _ in 0..30 {
            if definitions.is_empty() {
                return Ok(Vec::new());
            }
            let version = self.next_build();
            let file = folder.join(format!("libctx-{version}.so"));
            let source = definitions.source(version, &file);
            self.write_definitions(&folder, &source)?;
            let mut args = self.externs(dependencies);
            args.push("-Cmetadata=notebook".to_owned());
            args.push(format!("-Clink-arg=-Wl,-soname,libctx-{version}.so"));
            // Each version finds its own symbols first, whatever else is loaded.
            args.push("-Clink-arg=-Wl,-Bsymbolic".to_owned());
            if !source.homes.is_empty() {
                args.push("-Clink-arg=-Wl,--no-as-needed".to_owned());
                args.extend(source.homes.iter().map(|home| format!("-Clink-arg={}", home.display())));
            }
            let outcome = self.rustc.run(&Job {
                folder: &folder,
                file: "lib.rs",
                output: &file,
                crate_name: "ctx",
                crate_type: "dylib",
                opt_level: order.opt_level,
                args,
            });
            let outcome = self.timed(outcome)?;
            for (run, built) in &source.files {
                run.set_built(Part::Items, built.clone());
            }
            if outcome.success {
                let anew = source.anew.clone();
                definitions.compiled(Arc::new(Library { file }), source);
                return Ok(anew);
            }
            self.leave_out_stale(definitions, run, &outcome.messages)?;
        }
        Err(Failed::Other("the notebook's items do not compile with this cell".to_owned()))
    }

    fn write_definitions(&self, folder: &Path, source: &super::definitions::Source) -> Result<()> {
        let mut root = String::from("#![allow(warnings)]\n");
        root.push_str("use ::wavemesh_cell::output::{eprint, eprintln, print, println};\n");
        // What an item prints is the output of the cell that runs.
        root.push_str("const WAVEMESH_CELL_RUN: u64 = 0;\n");
        if let Some(prelude) = self.prelude() {
            root.push_str(&format!("use {prelude}::*;\n"));
        }
        for (run, built) in &source.files {
            root.push_str(&format!("include!({:?});\n", run.label));
            write_if_new(&folder.join(&run.label), &built.text)?;
        }
        write_if_new(&folder.join("lib.rs"), &root)
    }

    fn prelude(&self) -> Option<&'static str> {
        let named = self.state().dependencies.names().iter().any(|name| name == "wavemesh");
        (self.bundle.is_some() || named).then_some("::wavemesh::prelude")
    }

    /// Leaves out the items of other cells in which errors lie. When errors lie in the cell itself, or nowhere, these are its own.
    fn leave_out_stale(&self, definitions: &mut Definitions, run: &Arc<Run>, messages: &[Value]) -> Result<(), Failed> {
        let runs = self.runs();
        let mut own = Vec::new();
        let mut found = false;
        for message in messages.iter().filter(|message| message["level"] == "error") {
            // Of two items of one name, which a macro may have made, the newer counts.
            let doubled = ["E0428", "E0252", "E0255"].iter().any(|code| message["code"]["code"] == *code);
            let place = spans(message)
                .iter()
                .filter(|span| span["is_primary"] != doubled)
                .find_map(|span| place_in(span, |file| runs.iter().any(|run| run.label == file)));
            let Some((file, bytes)) = place else { continue };
            let Some(at) = runs.iter().rev().find(|run| run.label == file) else { continue };
            if Arc::ptr_eq(at, run) {
                own.push(message.clone());
                continue;
            }
            let byte = at.built(Part::Items).and_then(|built| built.source_of(bytes.start));
            let reason = message["message"].as_str().unwrap_or_default().to_owned();
            let stale = Stale { reason: plain_names(&reason), by: run.number };
            if let Some((byte, _)) = byte {
                found |= definitions.leave_out(at, byte, &stale);
            }
        }
        if !own.is_empty() {
            return Err(Failed::Refused(own, Part::Items));
        }
        if found { Ok(()) } else { Err(Failed::Refused(errors(messages), Part::Items)) }
    }

    fn compile_body(
        &self,
        order: &Order,
        run: &Arc<Run>,
        cell: &Cell,
        definitions: &Definitions,
        dependencies: &Dependencies,
        lost: &[String],
    ) -> Result<Object, Failed> {
        let mut plan = self.plan(order, cell, lost);
        let known = definitions.names();
        let mentioned: HashSet<&str> =
            cell.statements.iter().flat_map(|statement| words(&order.source[statement.range.clone()])).collect();
        let mut names: Vec<String> = known.into_iter().filter(|name| mentioned.contains(name.as_str())).collect();
        names.sort();
        let mut forgotten = self.state().forgotten.clone();
        forgotten.extend_from_slice(lost);
        let block_on = dependencies.block_on();
        let within = dependencies.within();
        for _ in 0..12 {
            let body = Body {
                source: order.source,
                cell,
                bound: &plan.bound,
                loaded: &plan.loaded,
                forgotten: &forgotten,
                levels: &plan.levels,
                run: order.id,
                names: definitions.library.as_ref().map(|_| &names[..]),
                prelude: self.prelude(),
                show: order.show.then(|| self.show_macro()),
                block_on: cell.awaits.then_some(block_on.as_deref()).flatten(),
                within: within.as_deref(),
            };
            let woven = body.weave();
            let folder = self.folder.join("b").join(self.next_build().to_string());
            std::fs::create_dir_all(&folder).context("cannot make a folder for the cell")?;
            std::fs::write(folder.join(&run.label), &woven.built.text).context("cannot write the cell")?;
            run.set_built(Part::Body, woven.built.clone());
            let output = folder.join("libcell.so");
            let mut args = self.externs(dependencies);
            if let Some(library) = &definitions.library {
                args.push(format!("--extern=ctx={}", library.file.display()));
                // A cell may use of it nothing but a static whose home is an earlier version, and needs this one to find it.
                args.push("-Clink-arg=-Wl,--no-as-needed".to_owned());
                args.push(format!("-Clink-arg={}", library.file.display()));
            }
            let outcome = self.rustc.run(&Job {
                folder: &folder,
                file: &run.label,
                output: &output,
                crate_name: "cell",
                crate_type: "cdylib",
                opt_level: order.opt_level,
                args,
            });
            let outcome = self.timed(outcome)?;
            if outcome.success {
                if plan.note_types(&outcome.messages, &woven) {
                    continue;
                }
                self.state().running = Some(plan.running(order.number));
                return Ok(Object { library: output, function: format!("run_user_code_{}", order.id), run: order.id });
            }
            if !plan.mend(&outcome.messages, &woven, cell, order.number) {
                return Err(Failed::Refused(errors(&outcome.messages), Part::Body));
            }
            self.give_up_loading(&plan);
        }
        Err(Failed::Other("the cell's variables borrow from each other".to_owned()))
    }

    fn plan(&self, order: &Order, cell: &Cell, lost: &[String]) -> Plan {
        let state = self.state();
        let mut bound: Vec<Bound> = cell
            .bindings
            .iter()
            .map(|binding| Bound {
                name: binding.name.clone(),
                mutable: binding.mutable,
                statement: binding.statement,
                supposed: binding.supposed,
                fate: if binding.statement == usize::MAX {
                    Fate::Gone(VariableState::Fleeting("it was not given a value".to_owned()))
                } else if binding.closure {
                    Fate::Gone(VariableState::Fleeting(CLOSURE.to_owned()))
                } else {
                    Fate::Stored
                },
                declared: None,
            })
            .collect();
        let mut loaded = Vec::new();
        for variable in state.variables.values().filter(|variable| cell.wants(&variable.name)) {
            let Variable { name, mutable, ty, state, .. } = variable.clone();
            if lost.contains(&name) {
                continue;
            }
            if state == VariableState::Stored {
                loaded.push(Loaded { name, mutable, ty, fate: Fate::Stored });
            } else if let (VariableState::Moved(_) | VariableState::Lost(..), Some(statement), false) =
                (&state, cell.starts_with_value(&name, order.source), ty.is_empty())
            {
                // It gets a value again.
                let fate = Fate::Stored;
                bound.push(Bound { name, mutable, statement, supposed: false, fate, declared: Some(ty) });
            }
        }
        let levels = levels(cell, &bound);
        Plan { bound, loaded, levels, types: BTreeMap::new(), flat: false }
    }

    /// Variables whose type cannot be named here are no more.
    fn give_up_loading(&self, plan: &Plan) {
        let mut state = self.state();
        for loaded in &plan.loaded {
            if let Fate::Gone(gone @ VariableState::Fleeting(_)) = &loaded.fate
                && let Some(variable) = state.variables.get_mut(&loaded.name)
            {
                variable.state = gone.clone();
            }
        }
    }

    fn next_build(&self) -> u64 {
        let mut state = self.state();
        state.builds += 1;
        state.builds
    }

    /// Notes how long a build took; a stop is an error of its own.
    fn timed(&self, outcome: Result<super::rustc::Outcome>) -> Result<super::rustc::Outcome, Failed> {
        if self.rustc.interrupted() {
            return Err(Failed::Interrupted);
        }
        let outcome = outcome?;
        self.state().times.push(outcome.build);
        Ok(outcome)
    }

    /// The cell ran: what it has stored is there, what it loaded and did not put back is gone, and what is gone is said. `ended_well`
    /// when neither an error nor a stop cut it short.
    pub fn cell_ran(&self, reports: &[Report], ended_well: bool) {
        let mut state = self.state();
        let Some(Running { number, bound, types, loaded }) = state.running.take() else { return };
        state.forgotten.clear();
        let stored: BTreeMap<&str, Option<usize>> = reports
            .iter()
            .filter_map(|report| match report {
                Report::Variable { name, number, .. } => Some((name.as_str(), *number)),
                _ => None,
            })
            .collect();
        let mut notes = Vec::new();
        for Loaded { name, fate, .. } in &loaded {
            if stored.contains_key(name.as_str()) {
                continue;
            }
            let how = "it was in the cell's hands when the cell was left";
            let gone = match fate {
                Fate::TakenBy(_) => VariableState::Moved(number),
                Fate::Gone(state) => state.clone(),
                Fate::Stored | Fate::StoredAs(_) => VariableState::Lost(number, how.to_owned()),
            };
            if !ended_well && !matches!(gone, VariableState::Fleeting(_)) {
                notes.push(match &gone {
                    VariableState::Moved(_) => format!("note: `{name}` is gone: the cell had moved it away."),
                    _ => format!("note: `{name}` is lost: {how}."),
                });
            }
            if let Some(variable) = state.variables.get_mut(name) {
                variable.state = gone;
            }
        }
        for (index, Bound { name, mutable, fate, supposed, .. }) in bound.iter().enumerate() {
            let new = |ty: String, state: VariableState| Variable {
                name: name.clone(),
                mutable: *mutable,
                cell: number,
                ty,
                state,
            };
            let ty = types.get(&index).cloned().unwrap_or_default();
            if stored.get(name.as_str()) == Some(&Some(index)) {
                state.variables.insert(name.clone(), new(ty, VariableState::Stored));
                continue;
            }
            if stored.contains_key(name.as_str()) || *supposed && matches!(fate, Fate::Gone(_)) {
                continue;
            }
            let newest = !bound[index + 1..].iter().any(|later| later.name == *name);
            let gone = match fate {
                Fate::Gone(state) => state.clone(),
                Fate::TakenBy(_) => VariableState::Moved(number),
                Fate::Stored | Fate::StoredAs(_) if ended_well => continue,
                Fate::Stored | Fate::StoredAs(_) => {
                    VariableState::Lost(number, "the cell failed before it was stored".to_owned())
                }
            };
            // A cell that failed may not have come as far as to bind it.
            let usable = state.variables.get(name).is_some_and(|known| known.state == VariableState::Stored);
            if !newest || (usable && !ended_well) {
                continue;
            }
            if let (VariableState::Fleeting(reason), true) = (&gone, ended_well) {
                notes.push(format!("note: `{name}` lives in this cell only: {reason}."));
            }
            state.variables.insert(name.clone(), new(ty, gone));
        }
        drop(state);
        for note in notes {
            self.pipes.send(Output::Stderr(note + "\n"));
        }
    }

    /// The process that held the variables is gone.
    pub fn lose_all(&self, number: u32) {
        let mut state = self.state();
        state.running = None;
        state.forgotten.clear();
        for variable in state.variables.values_mut().filter(|variable| variable.state == VariableState::Stored) {
            variable.state = VariableState::Lost(number, "its process ended".to_owned());
        }
    }

    /// Everything was cleared.
    pub fn forget_everything(&self) {
        let mut state = self.state();
        state.variables.clear();
        state.forgotten.clear();
        state.running = None;
        state.definitions = Definitions::default();
    }

    /// Variables that later cells can use, and their types, sorted by name.
    pub fn stored_variables(&self) -> Vec<(String, String)> {
        let state = self.state();
        let stored = state.variables.values().filter(|variable| variable.state == VariableState::Stored);
        stored.map(|variable| (variable.name.clone(), variable.ty.clone())).collect()
    }

    /// Every variable of earlier cells, those that are gone included.
    pub fn variables(&self) -> Vec<Variable> {
        self.state().variables.values().cloned().collect()
    }

    /// Items that are left out because they no longer compile.
    pub fn left_out(&self) -> Vec<Left> {
        self.state().definitions.left_out()
    }

    /// The items that are defined, as their cells have them, oldest first.
    pub fn items(&self) -> Vec<String> {
        self.state().definitions.texts()
    }

    /// Whether there is any.
    pub fn has_items(&self) -> bool {
        self.state().definitions.library.is_some()
    }

    /// Cells that were compiled, oldest first.
    pub fn runs(&self) -> Vec<Arc<Run>> {
        self.state().runs.clone()
    }

    /// How long each build of this cell took.
    pub fn builds(&self) -> Vec<Build> {
        self.state().times.clone()
    }

    /// Stops the compiler that runs now, and every other that this cell would start. True if one ran.
    pub fn interrupt(&self) -> bool {
        self.rustc.interrupt()
    }

    /// Adds a crate for the cells that follow, as it stands behind `:dep`. Returns its name and the rest of its line.
    pub fn add_dependency(&self, arguments: &str) -> Result<(String, String), String> {
        let (name, value) = deps::parse(arguments, &self.home)?;
        self.state().dependencies.want(&name, &value);
        Ok((name, value))
    }

    /// A variable of the environment of compilers.
    pub fn set_build_env(&self, name: &str, value: &str) {
        self.rustc.set_env(name, value);
    }

    /// The lines of `[dependencies]`.
    pub fn dependency_lines(&self) -> Vec<String> {
        self.state().dependencies.lines()
    }

    /// The crates that cells want, built if they are not.
    fn dependencies(&self, awaits: bool, number: u32) -> Result<Dependencies, Failed> {
        let (mut current, offline) = {
            let mut state = self.state();
            if awaits {
                state.dependencies.want_runtime();
            }
            (state.dependencies.clone(), state.offline)
        };
        if current.are_built() {
            return Ok(current);
        }
        let cache = library::cache_home().unwrap_or_else(|| self.folder.clone()).join("target");
        let mut bar = progress::Line::new(&self.pipes, "Building dependencies");
        let built = current.build(&mut deps::Build {
            folder: &self.folder.join("deps"),
            cache: &cache,
            toolchain: &self.toolchain,
            offline,
            env: &self.rustc.env(),
            bundle: self.bundle.as_ref(),
            say: &mut |text| self.pipes.send(Output::Stderr(text + "\n")),
            progress: &mut |line| bar.set(line.trim()),
            started: &mut |process| self.rustc.set_group(process),
        });
        bar.finish(built.is_ok());
        let mut state = self.state();
        let replaced = match built {
            Ok(replaced) => replaced,
            Err(message) => {
                state.dependencies.forget_unbuilt();
                return Err(if self.rustc.interrupted() { Failed::Interrupted } else { Failed::Other(message) });
            }
        };
        let mut notes = Vec::new();
        // Values of a crate that was built anew are of other types.
        let rests = |variable: &Variable| words(&variable.ty).any(|word| replaced.iter().any(|(name, _)| name == word));
        let mut lost = Vec::new();
        for variable in state.variables.values_mut() {
            if variable.state == VariableState::Stored && rests(variable) {
                variable.state = VariableState::Lost(number, "its crate was built anew".to_owned());
                lost.push(variable.name.clone());
            }
        }
        for (name, why) in &replaced {
            let of = |variable: &String| format!("`{variable}`");
            let lost: Vec<String> = lost.iter().map(of).collect();
            let lost = if lost.is_empty() { String::new() } else { format!(" Lost with it: {}.", lost.join(", ")) };
            notes.push(format!("note: {name} is built anew: {why}. Its statics start anew.{lost}"));
        }
        state.forgotten.extend(lost);
        // The definitions stood on what was there before.
        if !replaced.is_empty() {
            state.definitions.start_anew();
        }
        state.dependencies = current.clone();
        state.new_dependencies = true;
        drop(state);
        for note in notes {
            self.pipes.send(Output::Stderr(note + "\n"));
        }
        Ok(current)
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

/// The names of the notebook's own items in the path of a type.
fn own_names(ty: &str) -> impl Iterator<Item = &str> {
    let paths = ty.split("ctx::").skip(1);
    paths.flat_map(|path| {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
        path[..end].split("::")
    })
}

/// A text of rustc's with the names that people use.
pub fn plain_names(text: &str) -> String {
    text.replace(BUILT_AS, CALLED).replace("ctx::", "")
}

fn errors(messages: &[Value]) -> Vec<Value> {
    messages.iter().filter(|message| message["level"] == "error").cloned().collect()
}

impl Left {
    /// What a person is told when it becomes stale.
    pub fn told(&self) -> String {
        format!(
            "note: `{}` of cell [{}] no longer compiles since cell [{}]: {}. It is left out until it does.",
            self.title, self.cell, self.stale.by, self.stale.reason
        )
    }

    /// What a person is told who uses it.
    pub fn told_on_use(&self) -> String {
        format!(
            "`{}` is stale: cell [{}] defines it, but it no longer compiles since cell [{}]: {}.",
            self.title, self.cell, self.stale.by, self.stale.reason
        )
    }
}

fn write_if_new(path: &Path, text: &str) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How a cell is to be built, as far as is known.
struct Plan {
    bound: Vec<Bound>,
    loaded: Vec<Loaded>,
    levels: BTreeSet<usize>,
    types: BTreeMap<usize, String>,
    /// Whether levels were left out so that errors are told as the user wrote the code.
    flat: bool,
}

const CLOSURE: &str = "it is a closure or holds one, whose type has no name. To keep it, give it one: \
                       `let f: Box<dyn Fn(i32) -> i32> = Box::new(…)`";

/// Why a variable that borrows is not stored.
const BORROWED: &str =
    "it borrows from another variable. To keep it, make it own its data: `.clone()`, `.to_owned()`, `.to_vec()`";

/// Errors of the borrow checker, which a level may cause.
const BORROWS: [&str; 17] = [
    "E0381", "E0382", "E0384", "E0499", "E0502", "E0503", "E0505", "E0506", "E0507", "E0521", "E0373", "E0594",
    "E0596", "E0597", "E0713", "E0716", "E0310",
];

/// Those of them that a borrow causes which lasts too long.
const LASTING: [&str; 9] = ["E0499", "E0502", "E0503", "E0505", "E0506", "E0521", "E0597", "E0713", "E0716"];

impl Plan {
    fn running(self, number: u32) -> Running {
        Running { number, bound: self.bound, types: self.types, loaded: self.loaded }
    }

    /// Learns the types of the variables that the cell stores. True if it must be built once more.
    fn note_types(&mut self, messages: &[Value], woven: &Woven) -> bool {
        let mut again = false;
        for message in messages.iter().filter(|message| message["code"]["code"] == "dropping_references") {
            let spans = spans(message);
            let Some(Place::Keep(index)) = spans.iter().find_map(|span| place(span, woven)) else { continue };
            let label = spans.iter().find_map(|span| span["label"].as_str()?.strip_prefix("argument has type `&"));
            let Some(ty) = label.and_then(|label| label.strip_suffix('`')) else { continue };
            let ty = ty.replace(BUILT_AS, CALLED);
            if let Some((function, _)) = ty.split_once(" {").filter(|(function, _)| function.contains("fn(")) {
                // A function's own type has no name; a pointer to it has.
                again = true;
                self.bound[index].fate = Fate::StoredAs(function.to_owned());
                self.types.insert(index, function.to_owned());
            } else if ty.contains('{') || ty.contains("impl ") {
                let what = if ty.contains("{closure") { CLOSURE } else { "its type has no name" };
                // Its value must not stay in the store, where nobody could use it.
                again = !ty.contains("{closure");
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(what.to_owned()));
            } else {
                self.types.insert(index, ty);
            }
        }
        again
    }

    /// Changes what cannot be as it is. True if that may mend every error there is.
    fn mend(&mut self, messages: &[Value], woven: &Woven, cell: &Cell, number: u32) -> bool {
        let errors = messages.iter().filter(|message| message["level"] == "error" && !spans(message).is_empty());
        let mut mended = false;
        let mut levels_matter = false;
        let mut given_up = Vec::new();
        for message in errors {
            let code = message["code"]["code"].as_str().unwrap_or_default();
            let stored_while_borrowed = code == "E0505"
                && spans(message)
                    .iter()
                    .all(|span| matches!(place(span, woven), Some(Place::Keep(_))) == (span["is_primary"] == true));
            if stored_while_borrowed && self.give_up_borrower(message, woven, cell, &mut given_up)
                || self.mend_one(message, code, woven, cell, number)
            {
                mended = true;
            } else if BORROWS.contains(&code) && !self.flat && !self.levels.is_empty() {
                levels_matter = true;
            } else if LASTING.contains(&code) && self.give_up_borrower(message, woven, cell, &mut given_up) {
                mended = true;
            } else {
                return false;
            }
        }
        if levels_matter {
            self.fewer_levels(messages, woven);
            return true;
        }
        mended
    }

    fn mend_one(&mut self, message: &Value, code: &str, woven: &Woven, cell: &Cell, number: u32) -> bool {
        let of_kind = |primary: bool| {
            let spans = spans(message).iter().filter(move |span| span["is_primary"] == primary);
            spans.filter_map(|span| place(span, woven))
        };
        match (code, of_kind(true).next()) {
            (_, Some(Place::Load(index))) => {
                let ty = &self.loaded[index].ty;
                let reason = format!("its type `{ty}` cannot be named in another cell");
                self.loaded[index].fate = Fate::Gone(VariableState::Fleeting(reason));
                // It does not come in at all.
                true
            }
            ("E0382", Some(Place::Keep(index))) => {
                let fate = self.moved(message, woven, cell, number, &self.bound[index].fate);
                self.bound[index].fate = fate;
                true
            }
            ("E0382", Some(Place::PutBack(index))) => {
                let fate = self.moved(message, woven, cell, number, &self.loaded[index].fate);
                self.loaded[index].fate = fate;
                true
            }
            ("E0381", Some(Place::Keep(index))) => {
                let reason = "it may not have been given a value".to_owned();
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(reason));
                true
            }
            (_, Some(Place::Keep(index))) if self.bound[index].supposed => {
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(String::new()));
                true
            }
            ("E0425", Some(Place::Keep(index))) => {
                self.bound[index].fate = Fate::Gone(VariableState::Moved(number));
                true
            }
            ("E0597" | "E0505" | "E0716" | "E0373" | "E0521" | "E0503" | "E0506" | "E0310", _) => {
                let kept = of_kind(false).chain(of_kind(true)).find_map(|place| match place {
                    Place::Keep(index) => Some(index),
                    _ => None,
                });
                match kept {
                    Some(index) => {
                        self.bound[index].fate = Fate::Gone(VariableState::Fleeting(BORROWED.to_owned()));
                        self.levels = self.levels_of(cell);
                        true
                    }
                    None => false,
                }
            }
            _ => false,
        }
    }

    /// A variable that is stored must own its data. Where one borrows without saying so in its own line, as a struct does that holds a
    /// closure, rustc tells of what is borrowed alone: the variable that the same statement binds is not stored then. `given_up` holds those
    /// that other errors of the same build cost.
    fn give_up_borrower(&mut self, message: &Value, woven: &Woven, cell: &Cell, given_up: &mut Vec<usize>) -> bool {
        let statement_of = |span: &Value| {
            let (byte, verbatim) = woven.built.source_of(span["byte_start"].as_u64()?.try_into().ok()?)?;
            let statement = cell.statements.iter().position(|statement| statement.range.contains(&byte))?;
            verbatim.then_some((span["is_primary"] == true, statement))
        };
        // The error points at the borrow itself; of its other places the later ones, as what is borrowed comes first.
        let mut statements: Vec<(bool, usize)> = spans(message).iter().filter_map(statement_of).collect();
        statements.sort_by(|one, other| other.cmp(one));
        for (_, statement) in statements {
            for (index, bound) in self.bound.iter_mut().enumerate().filter(|(_, bound)| bound.statement == statement) {
                if given_up.contains(&index) {
                    return true;
                }
                if !matches!(bound.fate, Fate::Gone(_)) {
                    bound.fate = Fate::Gone(VariableState::Fleeting(BORROWED.to_owned()));
                    given_up.push(index);
                    return true;
                }
            }
        }
        false
    }

    /// The levels as they should be now, unless some were left out already.
    fn levels_of(&self, cell: &Cell) -> BTreeSet<usize> {
        let wanted = levels(cell, &self.bound);
        if self.flat { BTreeSet::new() } else { wanted.intersection(&self.levels).copied().collect() }
    }

    /// What becomes of a variable that the cell moves: up to the statement that does so it can be kept, if a level lies between.
    fn moved(&self, message: &Value, woven: &Woven, cell: &Cell, number: u32, before: &Fate) -> Fate {
        let gone = Fate::Gone(VariableState::Moved(number));
        if self.flat || !matches!(before, Fate::Stored) {
            return gone;
        }
        let through_level =
            spans(message).iter().any(|span| matches!(place(span, woven), Some(Place::Level(_) | Place::First)));
        let by = spans(message)
            .iter()
            .filter(|span| span["is_primary"] == false && place(span, woven).is_none())
            .filter_map(|span| woven.built.source_of(span["byte_start"].as_u64()?.try_into().ok()?))
            .filter(|(_, verbatim)| *verbatim)
            .find_map(|(byte, _)| cell.statements.iter().position(|statement| statement.range.contains(&byte)));
        match by {
            Some(by) if through_level => Fate::TakenBy(by),
            _ => gone,
        }
    }

    /// Leaves out the levels that errors name and those below them; all, when none is named, so that errors are told of the code as the
    /// user wrote it.
    fn fewer_levels(&mut self, messages: &[Value], woven: &Woven) {
        let named = messages
            .iter()
            .filter(|message| message["level"] == "error")
            .flat_map(|message| spans(message).iter())
            .filter_map(|span| match place(span, woven) {
                Some(Place::Level(statement)) => Some(statement),
                _ => None,
            })
            .min();
        match named {
            Some(named) if self.levels.iter().any(|&level| level < named) => self.levels.retain(|&level| level < named),
            _ => {
                self.levels.clear();
                self.flat = true;
            }
        }
        // What is taken through a reference was for levels that may be gone.
        for fate in self
            .bound
            .iter_mut()
            .map(|bound| &mut bound.fate)
            .chain(self.loaded.iter_mut().map(|loaded| &mut loaded.fate))
        {
            if matches!(fate, Fate::TakenBy(_)) {
                *fate = Fate::Stored;
            }
        }
    }
}

/// What the woven code does where a span starts.
fn place(span: &Value, woven: &Woven) -> Option<Place> {
    woven.place(span["byte_start"].as_u64()?.try_into().ok()?)
}
