//! What the library, the standard library and the crates of `:dep` offer, with declarations and documentation.
//!
//! rustdoc makes this reference from compiled metadata, so it needs no source. It runs once for each set of crates, for some seconds and at
//! the lowest priority; the result is kept in the data folder. Until then, only the names of the notebook itself are known.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal, setpriority_process};
use serde::{Deserialize, Serialize};

use super::item::{Item, Kind};
use super::page;
use crate::engine::compiler::{BUILT_AS, CALLED, Compiler};
use crate::engine::deps::Named;
use crate::engine::library::{self, Bundle};
use crate::engine::pipes::log;

/// The name of the crate that re-exports everything and is documented.
const ROOT: &str = "names";
/// The version of the kept files: a new number makes the kernel create them again.
const FORMAT: u32 = 3;
/// The modules of `std` that are documented. Unstable modules and those close to the system are left out to save time.
const STD: &str = "vec, string, option, result, collections, iter, boxed, rc, sync, cell, fmt, io, fs, path, time, thread, env, ops, \
                   cmp, mem, str, slice, process, hash, convert, error, any, borrow, clone, default, f32, f64, array, println, print, \
                   eprintln, eprint, format, assert, assert_eq, assert_ne, dbg, panic, todo, write, writeln, matches";
const PRIMITIVES: [&str; 16] = [
    "bool", "char", "str", "slice", "array", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64",
    "usize",
];
/// Names that every module can use without an import.
const STD_PRELUDE: [&str; 12] = [
    "std::vec::Vec",
    "std::string::String",
    "std::option::Option",
    "std::result::Result",
    "std::boxed::Box",
    "std::iter::Iterator",
    "std::iter::IntoIterator",
    "std::clone::Clone",
    "std::default::Default",
    "std::convert::From",
    "std::convert::Into",
    "std::string::ToString",
];
const STD_MACROS: [&str; 16] = [
    "println",
    "print",
    "eprintln",
    "eprint",
    "format",
    "vec",
    "assert",
    "assert_eq",
    "assert_ne",
    "dbg",
    "panic",
    "todo",
    "write",
    "writeln",
    "matches",
    "env",
];
/// Reading a kept file takes no longer than this, unless the machine is busy.
const MOMENT: Duration = Duration::from_secs(3);
/// The module whose names every cell can use.
const PRELUDE: &str = "wavemesh::prelude";

/// Items by path. A re-exported item has several paths.
#[derive(Default, Serialize, Deserialize)]
pub struct Reference {
    items: Vec<Item>,
    paths: BTreeMap<String, usize>,
}

impl Reference {
    /// The item at exactly `path`.
    pub fn get(&self, path: &str) -> Option<&Item> {
        self.paths.get(path).map(|&index| &self.items[index])
    }

    /// The item that `path` means in a cell. It is looked for as it stands, in WaveMesh's prelude, in that of `std`, and then as the end of
    /// any known path.
    pub fn resolve(&self, path: &str) -> Option<&Item> {
        let path = path.replace(BUILT_AS, CALLED).replace("alloc::", "std::").replace("core::", "std::");
        let in_prelude = || self.get(&format!("{PRELUDE}::{path}"));
        let in_std =
            || STD_PRELUDE.iter().find(|known| known.ends_with(&format!("::{path}"))).and_then(|known| self.get(known));
        let std_macro = || self.get(&format!("std::{}!", path.trim_end_matches('!')));
        let ending = || {
            let ending = format!("::{path}");
            let found = self.paths.iter().filter(|(known, _)| known.ends_with(&ending));
            found
                .min_by_key(|(known, _)| (known.matches("::").count(), known.len()))
                .map(|(_, &index)| &self.items[index])
        };
        let found = self.get(&path).or_else(in_prelude).or_else(in_std);
        // Without an exclamation mark, the path means a macro only if nothing else has that name.
        if path.ends_with('!') {
            found.or_else(std_macro).or_else(ending)
        } else {
            found.or_else(ending).or_else(std_macro)
        }
    }

    /// The items directly below a module, each with its name there.
    pub fn below<'a>(&'a self, module: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
        let start = format!("{module}::");
        self.paths
            .range(start.clone()..)
            .take_while(move |(path, _)| path.starts_with(&start))
            .map(move |(path, &index)| (&path[module.len() + 2..], &self.items[index]))
            .filter(|(name, _)| !name.contains("::"))
    }

    /// Names that a cell sees without importing anything.
    pub fn visible(&self) -> impl Iterator<Item = (&str, &Item)> {
        let of_std = STD_PRELUDE.iter().filter_map(|path| self.get(path)).map(|item| (item.name(), item));
        let macros = STD_MACROS.iter().filter_map(|name| Some((*name, self.get(&format!("std::{name}!"))?)));
        self.below(PRELUDE).chain(of_std).chain(macros)
    }

    /// Items of the standard library whose name begins with `start`, each with its path.
    pub fn of_std<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
        let of_std = self.paths.range("std::".to_owned()..).take_while(|(path, _)| path.starts_with("std::"));
        let named =
            of_std.filter(move |(path, _)| path.rsplit("::").next().is_some_and(|name| name.starts_with(start)));
        named.map(|(path, &index)| (path.as_str(), &self.items[index]))
    }

    /// The names of the crates.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str).filter(|path| !path.contains("::") && *path != "primitive")
    }

    /// Adds the items of another reference.
    fn extend(&mut self, other: Reference) {
        let before = self.items.len();
        self.items.extend(other.items);
        self.paths.extend(other.paths.into_iter().map(|(path, index)| (path, index + before)));
    }

    fn add(&mut self, path: String, item: Item, seen: &mut HashMap<u64, usize>) {
        let mut hasher = DefaultHasher::new();
        (item.name(), item.kind, &item.declaration, &item.members).hash(&mut hasher);
        if item.kind == Kind::Module {
            path.hash(&mut hasher);
        }
        let index = *seen.entry(hasher.finish()).or_insert_with(|| {
            self.items.push(item);
            self.items.len() - 1
        });
        self.paths.insert(path, index);
    }
}

/// The reference, which a background thread makes and keeps up to date.
#[derive(Default)]
pub struct Library {
    current: Mutex<Current>,
    changed: Condvar,
    /// The process of the running rustdoc, or 0.
    rustdoc: AtomicI32,
    /// Whether the kernel is ending, which removes its temporary folder.
    stopped: AtomicBool,
}

#[derive(Default)]
struct Current {
    /// A hash of the crates.
    key: u64,
    /// How many updates were asked for.
    updates: u64,
    reference: Arc<Reference>,
    /// Where a newer reference is being read from, if one is expected.
    reading: Option<Reading>,
}

/// Where a reference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The data folder, which takes a moment.
    File,
    /// rustdoc, which takes seconds.
    Rustdoc,
}

/// What one reference is made of.
struct Documented<'a> {
    crates: Vec<&'a str>,
    /// With these rustdoc reads the crates.
    args: Vec<String>,
    with_std: bool,
}

impl Library {
    /// The names that are known now. Just after the start this waits a moment for a kept file.
    pub fn current(&self) -> Arc<Reference> {
        self.wait(MOMENT, |current| current.reading == Some(Reading::File) && current.reference.items.is_empty())
    }

    /// Waits up to `patience` for rustdoc too; `None` if that takes longer.
    pub fn complete(&self, patience: Duration) -> Option<Arc<Reference>> {
        let known = self.wait(patience, |current| current.reading.is_some());
        self.state().reading.is_none().then_some(known)
    }

    fn wait(&self, patience: Duration, unless: impl Fn(&Current) -> bool) -> Arc<Reference> {
        let waited = self.changed.wait_timeout_while(self.state(), patience, |current| unless(current));
        let (current, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        Arc::clone(&current.reference)
    }

    /// Whether a newer reference is being read.
    pub fn is_reading(&self) -> bool {
        self.state().reading.is_some()
    }

    /// Notes that an update is about to start. Returns its number.
    pub fn expect_update(&self) -> u64 {
        let mut current = self.state();
        current.reading = Some(Reading::File);
        current.updates += 1;
        current.updates
    }

    /// Updates the reference to the library, `std` and the crates of `:dep`. New crates take seconds. If another update has been asked for
    /// meanwhile, what this one found is no longer wanted.
    pub fn update(&self, update: u64, compiler: &Compiler, added: &Named) {
        let known = self.state().key;
        let opened = self.open(compiler, added, known);
        let mut current = self.state();
        if current.updates != update {
            return;
        }
        match opened {
            Ok(Some((key, reference))) => (current.key, current.reference) = (key, Arc::new(reference)),
            Ok(None) => {}
            // When the kernel stops rustdoc, there is no error to report.
            Err(_) if self.stopped.load(Ordering::SeqCst) => {}
            Err(error) => log(&format!("completion knows the notebook only: {error:#}")),
        }
        current.reading = None;
        self.changed.notify_all();
    }

    /// Stops rustdoc, because the kernel ends.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(rustdoc) = Pid::from_raw(self.rustdoc.load(Ordering::SeqCst)) {
            let _ = kill_process(rustdoc, Signal::KILL);
        }
    }

    fn state(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads or makes the reference for the library, `std` and the crates of `:dep`; `None` if `known` is its key. The library and `std`
    /// have one file and the crates of `:dep` another, so that new crates are known soon.
    fn open(&self, compiler: &Compiler, added: &Named, known: u64) -> Result<Option<(u64, Reference)>> {
        let changed = |file: &Path| std::fs::metadata(file).ok()?.modified().ok();
        let library = compiler.bundle.as_ref().map(Bundle::file);
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), FORMAT, STD, &compiler.toolchain.version).hash(&mut hasher);
        library.as_deref().map(changed).hash(&mut hasher);
        let base = hasher.finish();
        // The name of a file that cargo makes tells versions and features, but not whether a local crate has changed.
        added.files.iter().for_each(|(name, file)| (name, file, changed(file)).hash(&mut hasher));
        let key = if added.files.is_empty() { base } else { hasher.finish() };
        if key == known {
            return Ok(None);
        }
        let crates = library.iter().map(|_| "wavemesh").collect();
        let own = Documented { crates, args: compiler.own_args(), with_std: true };
        let mut reference = self.kept_or_made(base, compiler, &own)?;
        if !added.files.is_empty() {
            let crates = added.files.keys().map(String::as_str).collect();
            let args = [own.args, added.args.clone()].concat();
            reference.extend(self.kept_or_made(key, compiler, &Documented { crates, args, with_std: false })?);
        }
        Ok(Some((key, reference)))
    }

    /// The reference of these crates; read from its file, or made.
    fn kept_or_made(&self, key: u64, compiler: &Compiler, documented: &Documented) -> Result<Reference> {
        let home = library::data_home().context("there is no home folder; set XDG_DATA_HOME")?;
        let file = home.join(format!("names-{key:016x}.json"));
        let kept = || serde_json::from_slice(&std::fs::read(&file).ok()?).ok();
        if let Some(reference) = kept() {
            return Ok(reference);
        }
        self.state().reading = Some(Reading::Rustdoc);
        self.changed.notify_all();
        std::fs::create_dir_all(&home)?;
        // If several kernels need it, one of them makes it.
        let lock = std::fs::File::create(home.join("names-.lock"))?;
        lock.lock()?;
        if let Some(reference) = kept() {
            return Ok(reference);
        }
        let folder = tempfile::Builder::new().prefix("names-").tempdir_in(&compiler.folder)?;
        let reference = self.make(compiler, documented, folder.path())?;
        // Pages that vanish during reading would be missing from the file for good.
        ensure!(!self.stopped.load(Ordering::SeqCst), "the kernel ended before the names were read");
        forget_old(&home);
        let mut written = tempfile::NamedTempFile::new_in(&home)?;
        written.write_all(&serde_json::to_vec(&reference)?)?;
        written.persist(&file)?;
        Ok(reference)
    }

    fn make(&self, compiler: &Compiler, documented: &Documented, folder: &Path) -> Result<Reference> {
        let mut source = "#![feature(rustdoc_internals, rustc_attrs)]\n#![allow(internal_features)]\n".to_owned();
        for name in &documented.crates {
            source.push_str(&format!("#[doc(inline)] pub use ::{name};\n"));
        }
        if documented.with_std {
            source.push_str(&format!("pub mod std {{ #[doc(inline)] pub use ::std::{{{STD}}}; }}\n"));
        }
        for name in PRIMITIVES.iter().filter(|_| documented.with_std) {
            source.push_str(&format!("#[rustc_doc_primitive = \"{name}\"] /// .\nmod prim_{name} {{}}\n"));
        }
        std::fs::write(folder.join("lib.rs"), source)?;
        let mut command = compiler.toolchain.quiet("rustdoc");
        command
            .current_dir(folder)
            .args([
                "-Zunstable-options",
                "--emit=invocation-specific",
                "--edition=2024",
                "-Awarnings",
                "-o",
                "html",
                "lib.rs",
            ])
            .arg(format!("--crate-name={ROOT}"))
            .args(&documented.args);
        // Cells come first, and rustdoc must not outlive the kernel.
        let stand_back = || {
            setpriority_process(None, 19)?;
            Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
        };
        // SAFETY: between fork and exec this makes system calls and nothing else.
        unsafe { command.pre_exec(stand_back) };
        let rustdoc = command.spawn().context("cannot run rustdoc")?;
        self.rustdoc.store(i32::try_from(rustdoc.id())?, Ordering::SeqCst);
        let output = rustdoc.wait_with_output();
        self.rustdoc.store(0, Ordering::SeqCst);
        let output = output?;
        ensure!(output.status.success(), "rustdoc: {}", String::from_utf8_lossy(&output.stderr).trim());
        let mut pages = Vec::new();
        find_pages(&folder.join("html").join(ROOT), "", &mut pages);
        let reference = read_pages(&pages);
        ensure!(!reference.items.is_empty(), "rustdoc wrote no page that could be read");
        Ok(reference)
    }
}

/// Removes all but the latest few references.
fn forget_old(home: &Path) {
    let is_names = |name: &str| name.starts_with("names-") && name.ends_with(".json");
    let mut files: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(home)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_names(&entry.file_name().to_string_lossy()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    for (_, file) in files.iter().rev().skip(15) {
        let _ = std::fs::remove_file(file);
    }
}

/// A page of rustdoc's.
struct Page {
    file: PathBuf,
    /// The path of its item.
    path: String,
    kind: Kind,
}

/// Finds the pages below a folder.
fn find_pages(folder: &Path, module: &str, pages: &mut Vec<Page>) {
    let below = |name: &str| if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // The first of an item's paths counts as its own: `wavemesh::mesh::Mesh` comes before `wavemesh::prelude::Mesh`.
    entries.sort();
    for file in entries {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if file.is_dir() {
            find_pages(&file, &below(&name), pages);
            continue;
        }
        let Some(stem) = name.strip_suffix(".html") else { continue };
        let (path, kind) = match stem.split_once('.') {
            None if stem == "index" && !module.is_empty() => (module.to_owned(), Kind::Module),
            Some(("primitive", name)) => (format!("primitive::{name}"), Kind::Primitive),
            Some((kind, name)) if !name.ends_with('!') => {
                let kind = match kind {
                    "struct" | "union" => Kind::Struct,
                    "enum" => Kind::Enum,
                    "trait" => Kind::Trait,
                    "fn" => Kind::Function,
                    "macro" => Kind::Macro,
                    "constant" | "static" => Kind::Constant,
                    "type" => Kind::Alias,
                    _ => continue,
                };
                // A module may have the same name as a macro, for example `vec`.
                (below(name) + if kind == Kind::Macro { "!" } else { "" }, kind)
            }
            _ => continue,
        };
        pages.push(Page { file, path, kind });
    }
}

/// What pages say, read by as many threads as there are cores: those of a crate for mathematics are 60 MB.
fn read_pages(pages: &[Page]) -> Reference {
    let read = |page: &Page| Some(page::read(&std::fs::read_to_string(&page.file).ok()?, &page.path, page.kind, ROOT));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        // One after another, since a few are much longer than the others.
        let mine = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&at| at < pages.len()));
        mine.map(|at| (at, read(&pages[at]))).collect::<Vec<_>>()
    };
    let mut items: Vec<Option<Item>> = pages.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        for (at, item) in others.into_iter().filter_map(|thread| thread.join().ok()).flatten().chain(own) {
            items[at] = item;
        }
    });
    let (mut reference, mut seen) = (Reference::default(), HashMap::new());
    for (page, item) in pages.iter().zip(items) {
        if let Some(item) = item {
            reference.add(page.path.clone(), item, &mut seen);
        }
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_path_of_an_item_counts_whichever_thread_reads_its_page_first() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..40 {
            for module in ["mesh", "prelude"] {
                let below = folder.path().join(module);
                std::fs::create_dir_all(&below).unwrap();
                let page = format!(
                    "<section id=\"main-content\"><pre class=\"rust item-decl\"><code>struct A{number};</code></pre>"
                );
                std::fs::write(below.join(format!("struct.A{number}.html")), page).unwrap();
            }
        }
        let mut pages = Vec::new();
        find_pages(folder.path(), "", &mut pages);
        let reference = read_pages(&pages);
        assert_eq!((pages.len(), reference.items.len()), (80, 40));
        for number in 0..40 {
            let item = reference.get(&format!("prelude::A{number}")).unwrap();
            assert_eq!(
                (item.path.clone(), &*item.declaration),
                (format!("mesh::A{number}"), &*format!("struct A{number};"))
            );
        }
    }
}
