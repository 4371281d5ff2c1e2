//! Compiles cells: the notebook's definitions when they change ([`items`]), and the statements of each cell as a library of its own
//! ([`statements`]).
//!
//! Some facts only rustc knows, and it is asked by building. A warning about `drop(&x)` contains the type of a variable, with a path that
//! is valid in the next cell. An error at the place where a variable would be stored says that it was moved away or borrows from another;
//! the cell is then built again without storing it ([`mending`]). An error in an item of another cell means that this item is stale.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use anyhow::Result;
use serde_json::Value;
use wavemesh_cell::protocol::Report;

use self::state::State;
use super::Output;
use super::body;
use super::cell::{Cell, Page, Part, Run};
use super::definitions::{Definitions, Left};
use super::deps::{self, Dependencies, Named};
use super::grammar::program::{Program, Test};
use super::library::{self, Bundle};
use super::pipes::Pipes;
use super::report::{self, Places};
use super::rustc::{Build, Outcome, Rustc};
use super::toolchain::Toolchain;
use super::variables::{State as VariableState, Variable};

mod crates;
mod items;
mod mending;
mod names;
mod plan;
mod state;
mod statements;

pub use self::names::{BUILT_AS, CALLED, plain_names};

/// Compiles the cells of one notebook.
pub struct Compiler {
    pub toolchain: Toolchain,
    pub bundle: Option<Bundle>,
    /// When the compiled library that this kernel has loaded was made.
    library_made: Option<SystemTime>,
    pub runtime: PathBuf,
    pub folder: PathBuf,
    /// The notebook's folder, where files that it names are looked for.
    home: PathBuf,
    pipes: Arc<Pipes>,
    rustc: Rustc,
    state: Mutex<State>,
}

/// A cell to compile.
pub struct Order<'a> {
    pub source: &'a str,
    /// The cell's number, as in `In [3]`.
    pub number: u32,
    /// A number that no other run has.
    pub id: u64,
    pub opt_level: &'a str,
    /// Whether the value that ends the cell is shown.
    pub show: bool,
    /// Whether the cell runs many times, to be timed.
    pub repeat: bool,
    /// What else runs after it.
    pub program: &'a Program,
    /// The id that the frontend gives the cell.
    pub cell: Option<&'a str>,
    /// Cells that the frontend has removed.
    pub deleted: &'a [String],
    /// Receives the crates that cells can name when they are compiled for it, before it is compiled itself.
    pub crates_compiled: &'a dyn Fn(&Named),
}

fn made(bundle: &Bundle) -> Option<SystemTime> {
    std::fs::metadata(bundle.file()).ok()?.modified().ok()
}

/// Why a cell was not compiled.
#[derive(Debug)]
pub enum Failed {
    /// rustc rejects this part of the cell.
    Refused(Vec<Value>, Part),
    /// It was asked to stop.
    Interrupted,
    /// Another reason, as text for the user.
    Other(String),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Failed {
        Failed::Other(format!("{error:#}"))
    }
}

/// A compiled cell for the child to run.
pub struct Object {
    pub library: PathBuf,
    pub function: String,
    /// The number of this run, unlike that of any other run.
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
            library_made: bundle.as_ref().and_then(made),
            bundle,
            runtime,
            home: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            folder,
            pipes,
            state: Mutex::default(),
        })
    }

    /// The macro that shows the value at the end of a cell. Code that calls `evcxr_display` itself needs the library's trait with that
    /// method.
    fn show_macro(&self, source: &str) -> &'static str {
        match self.bundle.is_some() {
            true if source.contains(".evcxr_display(") => "::wavemesh::notebook::show",
            true => body::SHOW_RICHLY,
            false => "::wavemesh_cell::show",
        }
    }

    /// rustc's arguments for the crates that cells are linked with now, the notebook's definitions included.
    pub fn extern_args(&self) -> Vec<String> {
        let library = self.state().definitions.library.clone();
        let mut args = self.externs(&self.state().dependencies.clone());
        args.extend(library.map(|library| format!("--extern=this_notebook={}", library.file.display())));
        args
    }

    /// The same arguments without the notebook's own definitions.
    fn externs(&self, dependencies: &Dependencies) -> Vec<String> {
        let mut args = self.own_args();
        args.extend_from_slice(&dependencies.rustc_args);
        args
    }

    /// The same for what is there without `:dep`: the runtime and the compiled library.
    pub fn own_args(&self) -> Vec<String> {
        let mut args = vec![format!("--extern=wavemesh_cell={}", self.runtime.display())];
        // The definitions need the runtime too, whichever crate is loaded first.
        args.extend(self.runtime.parent().map(|folder| format!("-Ldependency={}", folder.display())));
        args.extend(self.bundle.iter().flat_map(library::link_args));
        args
    }

    fn prelude(&self, dependencies: &Dependencies) -> Option<&'static str> {
        let named = dependencies.names().iter().any(|name| name == "wavemesh");
        (self.bundle.is_some() || named).then_some("::wavemesh::prelude")
    }

    /// Crates to import by name, so that they win over the prelude's: the prelude has some crates of the compiled library, and those of
    /// `:dep` may be other versions. If an item of the notebook has the name of a crate, the item wins.
    fn named_crates(&self, dependencies: &Dependencies, definitions: &Definitions) -> Vec<String> {
        if self.prelude(dependencies).is_none() {
            return Vec::new();
        }
        let known = definitions.names();
        dependencies.names().into_iter().filter(|name| name != "wavemesh" && !known.contains(name)).collect()
    }

    /// Compiles a cell and defines its items. Returns `None` if the cell has no statements to run.
    pub fn compile(&self, order: &Order) -> Result<Option<Object>, Failed> {
        self.rustc.begin();
        let before = {
            let mut state = self.state();
            state.times.clear();
            state.running = None;
            state.definitions.clone()
        };
        let mut cell = Cell::parse(order.source, &self.home, &|name| before.macro_rules(name));
        cell.run_program(order.program, order.source);
        if order.repeat {
            cell.repeat(order.opt_level);
        }
        let dependencies = self.dependencies(cell.awaits || cell.names_runtime, order)?;
        // If crates were rebuilt, the definitions that depend on them have to be rebuilt too.
        let before = if before.library.is_some() { self.state().definitions.clone() } else { before };
        let run = self.new_run(order, &[(String::new(), 0..order.source.len())], order.source);
        let mut definitions = before.with(&run, cell.items.clone(), order.cell, order.deleted);
        let mut own = vec![Arc::clone(&run)];
        for file in &cell.files {
            let id = order.cell.map(|id| format!("{id}#{}", file.title));
            let run = self.new_run(order, &file.pages, &file.source);
            definitions = definitions.with(&run, file.items.clone(), id.as_deref(), &[]);
            own.push(run);
        }
        let mut anew = Vec::new();
        let is_compiled = before.library.is_some() || before.is_empty();
        if is_compiled && definitions.same_items(&before) {
            definitions.library = before.library.clone();
        } else {
            anew = self.define(&mut definitions, &own, order, &dependencies)?;
        }
        // Variables whose type has changed are lost: otherwise the store would read the old value with the new layout.
        let (reshaped, hidden) = {
            let state = self.state();
            (state.reshaped_in(&before, &definitions), state.hidden_by(&cell, &before, &definitions))
        };
        let hidden = hidden.into_iter().map(|name| (name, VariableState::Hidden(order.number)));
        let lost: Vec<(String, VariableState)> =
            reshaped.into_iter().map(|name| (name, VariableState::Redefined(order.number))).chain(hidden).collect();
        let object = if cell.statements.is_empty() {
            None
        } else {
            Some(self.compile_body(order, &run, &cell, &definitions, &dependencies, &lost)?)
        };
        self.commit(definitions, &before, lost, anew);
        Ok(object)
    }

    /// A run with these pages, each given by the name of its file; the cell's own page has an empty name. The label of a page is the path
    /// of its file below the compiler's folder, so no two pages have the same.
    fn new_run(&self, order: &Order, pages: &[(String, Range<usize>)], source: &str) -> Arc<Run> {
        let mut state = self.state();
        let mut new: Vec<Page> = Vec::new();
        for (name, range) in pages {
            let name = if name.is_empty() { format!("In [{}]", order.number) } else { name.clone() };
            let path = Path::new(&name);
            let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
            let last = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let plain = if is_below { name.clone() } else { last.unwrap_or_default() };
            let mut labels = (0..).map(|index| match index {
                0 => plain.clone(),
                1 => format!("{plain} {}", order.id),
                _ => format!("{plain} {}.{index}", order.id),
            });
            let is_known = |label: &String| {
                let pages = state.runs.iter().rev().flat_map(|run| &run.pages).chain(&new);
                pages.into_iter().any(|page| page.label == *label)
            };
            let label = labels.find(|label| !is_known(label)).unwrap_or(plain);
            new.push(Page { name, label, range: range.clone() });
        }
        let run = Arc::new(Run::new(order.number, new, source));
        state.runs.push(Arc::clone(&run));
        run
    }

    fn next_build(&self) -> u64 {
        let mut state = self.state();
        state.builds += 1;
        state.builds
    }

    /// Notes how long a build took. A stop becomes an error of its own kind.
    fn timed(&self, outcome: Result<Outcome>) -> Result<Outcome, Failed> {
        if self.rustc.interrupted() {
            return Err(Failed::Interrupted);
        }
        let outcome = outcome?;
        self.state().times.push(outcome.build);
        Ok(outcome)
    }

    /// Variables that later cells can use, with their types, sorted by name.
    pub fn stored_variables(&self) -> Vec<(String, String)> {
        self.state().stored().map(|variable| (variable.name.clone(), variable.ty.clone())).collect()
    }

    /// Every variable of earlier cells, also those that are gone.
    pub fn variables(&self) -> Vec<Variable> {
        self.state().variables.values().cloned().collect()
    }

    /// Items that are left out because they no longer compile.
    pub fn left_out(&self) -> Vec<Left> {
        self.state().definitions.left_out()
    }

    /// The items that are defined, as written in their cells, oldest first.
    pub fn items(&self) -> Vec<String> {
        self.state().definitions.texts()
    }

    /// The same items as code for a program.
    pub fn program(&self) -> Vec<String> {
        self.state().definitions.program()
    }

    /// The tests among them.
    pub fn tests(&self) -> Vec<Test> {
        self.state().definitions.tests()
    }

    /// Whether the notebook has any item.
    pub fn has_items(&self) -> bool {
        self.state().definitions.library.is_some()
    }

    /// The cells that were compiled, oldest first.
    pub fn runs(&self) -> Vec<Arc<Run>> {
        self.state().runs.clone()
    }

    /// How long each build of this cell took.
    pub fn builds(&self) -> Vec<Build> {
        self.state().times.clone()
    }

    /// Whether the compiled library was replaced after this kernel started: cells would be linked with another library than the loaded one.
    pub fn library_was_replaced(&self) -> bool {
        self.library_made != self.bundle.as_ref().and_then(made)
    }

    /// Stops the running compiler, and every other that this cell would start. Returns true if one was running.
    pub fn interrupt(&self) -> bool {
        self.rustc.interrupt()
    }

    /// Adds crates for later cells; `arguments` is what follows `:dep`.
    pub fn add_dependency(&self, arguments: &str) -> Result<(), String> {
        for (name, value) in deps::parse(arguments, &self.home)? {
            self.state().dependencies.want(&name, &value);
        }
        Ok(())
    }

    /// Sets an environment variable for compilers.
    pub fn set_build_env(&self, name: &str, value: &str) {
        self.rustc.set_env(name, value);
    }

    /// The lines of `[dependencies]`.
    pub fn dependency_lines(&self) -> Vec<String> {
        self.state().dependencies.lines()
    }

    /// `:offline`.
    pub fn set_offline(&self, offline: bool) {
        self.state().offline = offline;
    }

    /// Takes over the definitions of a cell that was compiled.
    fn commit(
        &self,
        definitions: Definitions,
        before: &Definitions,
        lost: Vec<(String, VariableState)>,
        anew: Vec<String>,
    ) {
        let lost_notes = lost.iter().map(|(name, state)| match state {
            VariableState::Hidden(_) => format!("note: `{name}` is lost: the cell defines an item of its name."),
            _ => format!("note: `{name}` is lost: its type was defined again."),
        });
        let anew_notes = anew.iter().map(|path| format!("note: `{path}` starts again: it was defined again."));
        let known = before.left_out();
        let left = definitions.left_out().into_iter().filter(|left| !known.contains(left));
        let mut notes: Vec<String> = lost_notes.chain(anew_notes).chain(left.map(|left| left.told())).collect();
        let mut state = self.state();
        state.define(definitions, lost);
        notes.extend(state.outdated_since(before));
        drop(state);
        self.tell(notes);
    }

    /// Notes that the cell ran. `ended_well` is false if an error or a stop cut it short. Tells the user which variables are gone.
    pub fn cell_ran(&self, reports: &[Report], ended_well: bool) {
        let notes = self.state().cell_ran(reports, ended_well);
        self.tell(notes);
    }

    /// Shows warnings about the cell's own code.
    fn warn(&self, messages: &[Value], own: &[Arc<Run>], part: Part) {
        for warning in report::warnings(messages, &Places::of(own.to_vec(), part)) {
            self.pipes.send(Output::Stderr(warning));
        }
    }

    fn tell(&self, notes: Vec<String>) {
        for note in notes {
            self.pipes.send(Output::Stderr(note + "\n"));
        }
    }

    /// Notes that the process that held the variables is gone.
    pub fn lose_all(&self, number: u32) {
        self.state().lose_all(number);
    }

    /// Forgets variables and definitions after `:clear`.
    pub fn forget_everything(&self) {
        self.state().forget_everything();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn errors(messages: &[Value]) -> Vec<Value> {
    messages.iter().filter(|message| message["level"] == "error").cloned().collect()
}
