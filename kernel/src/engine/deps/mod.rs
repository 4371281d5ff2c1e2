//! Crates that the user adds with `:dep`. cargo builds each once and shows its progress; the process has each crate once.
//!
//! cargo builds them as it does for any program. Then a small crate that holds them all is linked as a dynamic library, and cells and
//! definitions are linked with that. So there is one copy of each crate's code and statics, whatever cell uses it. A later `:dep` makes
//! another such library, which depends on the earlier ones and holds the new crates. If the new crates need more features or another
//! version of a crate that is there already, cargo builds it again, and all crates move to a new library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::cargo::{Cargo, Crate};
use self::holder::{Holder, hold};
use super::library::Bundle;
use super::toolchain::Toolchain;

mod cargo;
mod finished;
mod holder;
mod line;
mod sources;

pub use self::line::parse;

/// The features with which the runtime behind `.await` is built from the start.
const RUNTIME: &str = "{ version = \"1\", features = [\"full\"] }";

/// The `[dependencies]` of a notebook, and what rustc needs to link them.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    wanted: BTreeMap<String, String>,
    /// The lines of the last build.
    built: BTreeMap<String, String>,
    /// When a file of each local crate last changed.
    newest: BTreeMap<String, SystemTime>,
    named: Named,
    /// `--extern`, `-L` and linker arguments.
    pub rustc_args: Vec<String>,
    /// The libraries that hold the crates; each depends on the earlier ones.
    chain: Vec<Holder>,
    /// The number of these libraries so far.
    holders: u64,
}

/// The crates that cells can name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The file of each crate, by the name that cells use.
    pub files: BTreeMap<String, PathBuf>,
    /// `--extern` and `-L`: with these rustc and rustdoc read the crates.
    pub args: Vec<String>,
}

/// What a build of dependencies needs, and where it reports.
pub struct Build<'a> {
    /// This kernel's own folder for the build.
    pub folder: &'a Path,
    /// The folder where cargo builds; kernels share it.
    pub cache: &'a Path,
    pub toolchain: &'a Toolchain,
    pub offline: bool,
    /// Additional environment variables.
    pub env: &'a [(String, String)],
    /// The compiled library, whose crates need not be built.
    pub bundle: Option<&'a Bundle>,
    /// Receives messages for the user.
    pub say: &'a mut dyn FnMut(String),
    /// Receives cargo's progress line by line.
    pub progress: &'a mut dyn FnMut(&str),
    /// Receives the crates when they are compiled, before they are linked.
    pub compiled: &'a mut dyn FnMut(&Named),
    /// Receives the process that an interrupt must end.
    pub started: &'a mut dyn FnMut(Option<u32>),
}

impl Dependencies {
    /// Adds a crate, as a line of `[dependencies]`.
    pub fn want(&mut self, name: &str, value: &str) {
        let value = if name == "tokio" { line::with_all_of_tokio(value) } else { value.to_owned() };
        self.wanted.insert(name.to_owned(), value);
    }

    /// Adds the runtime behind `.await`, unless the user has added it.
    pub fn want_runtime(&mut self) {
        self.wanted.entry("tokio".to_owned()).or_insert_with(|| RUNTIME.to_owned());
    }

    /// The lines of `[dependencies]`.
    pub fn lines(&self) -> Vec<String> {
        self.wanted.iter().map(|(name, value)| format!("{name} = {value}")).collect()
    }

    /// The crates that cells can use.
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// The names of the crates that cells can use.
    pub fn names(&self) -> Vec<String> {
        self.named.files.keys().cloned().collect()
    }

    /// Whether everything wanted is built, and no file of a local crate has changed since.
    pub fn are_built(&self) -> bool {
        self.wanted == self.built && self.newest == sources::newest(&self.wanted)
    }

    /// Stops asking for crates that could not be built.
    pub fn forget_unbuilt(&mut self) {
        self.wanted = self.built.clone();
    }

    /// Wanted crates that the compiled library holds, with their files; then those that it holds in an unsuitable form, with the reason.
    fn held(&self, bundle: Option<&Bundle>) -> (BTreeMap<String, PathBuf>, Vec<(String, String)>) {
        let (mut held, mut apart) = (BTreeMap::new(), Vec::new());
        for (name, value) in &self.wanted {
            let Some((bundle, known)) = bundle.and_then(|bundle| Some((bundle, bundle.held(name)?))) else { continue };
            if name == "log" {
                apart.push((name.clone(), "the library's own logger is the one of that".to_owned()));
                continue;
            }
            match known.serves(value) {
                Ok(()) => drop(held.insert(name.clone(), bundle.lib_dir().join(&known.file))),
                Err(why) => apart.push((name.clone(), why)),
            }
        }
        (held, apart)
    }

    fn lines_but(&self, held: &BTreeMap<String, PathBuf>) -> Vec<String> {
        let wanted = self.wanted.iter().filter(|(name, _)| !held.contains_key(*name));
        wanted.map(|(name, value)| format!("{name} = {value}")).collect()
    }

    fn runtime(&self) -> Option<&Holder> {
        self.chain.iter().find(|holder| holder.runtime)
    }

    /// Path of the function that waits for a future.
    pub fn block_on(&self) -> Option<String> {
        self.runtime().map(|holder| format!("::{}::block_on", holder.name))
    }

    /// An expression whose value lives as long as a cell runs, so that the cell can start tasks.
    pub fn within(&self) -> Option<String> {
        self.runtime().map(|holder| format!("::{}::enter()", holder.name))
    }

    /// Builds what is wanted. Returns the crates that were rebuilt, with the reason.
    pub fn build(&mut self, build: &mut Build) -> Result<Vec<(String, String)>, String> {
        let newest = sources::newest(&self.wanted);
        let (mut held, mut apart) = self.held(build.bundle);
        let cargo = loop {
            let cargo = finished::build(&self.lines_but(&held), build)?;
            let conflicts: Vec<(String, String)> =
                held.keys().filter_map(|name| Some((name.clone(), conflict(name, &cargo, build.bundle)?))).collect();
            if conflicts.is_empty() {
                break cargo;
            }
            for (name, why) in conflicts {
                held.remove(&name);
                apart.push((name, why));
            }
        };
        let mut files = cargo.externs.clone();
        files.extend(held.iter().map(|(name, file)| (name.replace('-', "_"), file.clone())));
        let mut args = vec![format!("-Ldependency={}", build.cache.join("debug/deps").display())];
        args.extend(cargo.native.iter().map(|folder| format!("-L{folder}")));
        args.extend(files.iter().map(|(name, file)| format!("--extern={name}={}", file.display())));
        let named = Named { files, args };
        (build.compiled)(&named);
        self.tell_origins(&apart, build);
        let replaced = self.replaced(&cargo, &named.files, &apart, &newest);
        let mut chain = if replaced.is_empty() { self.chain.clone() } else { Vec::new() };
        let held: BTreeSet<&PathBuf> = chain.iter().flat_map(|holder| holder.crates.keys()).collect();
        let new: BTreeMap<PathBuf, Crate> = cargo
            .crates
            .iter()
            .filter(|(file, _)| !held.contains(file))
            .map(|(file, known)| (file.clone(), known.clone()))
            .collect();
        let mut args = named.args.clone();
        args.push(format!("-Ldependency={}", build.folder.display()));
        args.push(format!("-Clink-arg=-Wl,-rpath,{}", build.folder.display()));
        if !new.is_empty() {
            self.holders += 1;
            let holder = hold(self.holders, new, &chain, &named.files, &args, build)?;
            chain.push(holder);
        }
        for (index, holder) in chain.iter().enumerate() {
            // Every cell links the newest library, so that crates come from it; the others are linked where they are named.
            let force = if index + 1 == chain.len() { "force:" } else { "" };
            args.push(format!("--extern={force}{}={}", holder.name, holder.file.display()));
        }
        (self.chain, self.rustc_args, self.newest, self.named) = (chain, args, newest, named);
        self.built = self.wanted.clone();
        Ok(replaced.into_iter().collect())
    }

    /// Tells the user which new crates differ from those of the compiled library.
    fn tell_origins(&self, apart: &[(String, String)], build: &mut Build) {
        let is_new = |name: &String| !self.built.contains_key(name);
        for (name, why) in apart.iter().filter(|(name, _)| is_new(name)) {
            (build.say)(format!("note: {name} is built apart from that of the compiled library: {why}."));
        }
    }

    /// Crates that exist already but differ in this build, with the reason. `apart` are those that the compiled library cannot provide,
    /// with the reason.
    fn replaced(
        &self,
        cargo: &Cargo,
        files: &BTreeMap<String, PathBuf>,
        apart: &[(String, String)],
        newest: &BTreeMap<String, SystemTime>,
    ) -> BTreeMap<String, String> {
        let mut replaced = BTreeMap::new();
        let known = self.chain.iter().flat_map(|holder| &holder.crates);
        for (_, known) in known.filter(|(file, _)| !cargo.crates.contains_key(*file)) {
            // A crate that is missing now is no longer wanted.
            if let Some(now) = cargo.crates.values().find(|now| now.name == known.name) {
                replaced.insert(known.name.replace('-', "_"), why(known, now));
            }
        }
        for (name, _) in self.newest.iter().filter(|(name, time)| newest.get(*name).is_some_and(|now| now != *time)) {
            replaced.insert(name.replace('-', "_"), "its source changed".to_owned());
        }
        // The crate moved from the compiled library to cargo's build, or back.
        for name in self.named.files.iter().filter(|(name, file)| files.get(*name).is_some_and(|now| now != *file)) {
            let apart = apart.iter().find(|(apart, _)| apart.replace('-', "_") == *name.0).map(|(_, why)| why.clone());
            let why = apart.unwrap_or_else(|| "the compiled library holds what its line asks for".to_owned());
            replaced.entry(name.0.clone()).or_insert(why);
        }
        replaced
    }
}

/// Why a crate cannot come from the compiled library, given the crates that cargo built: one of these depends on that crate, or on the core
/// that it re-exports (`serde` re-exports `serde_core`), and would use another copy than cells do.
fn conflict(name: &str, cargo: &Cargo, bundle: Option<&Bundle>) -> Option<String> {
    let core = format!("{name}_core").replace('-', "_");
    let is_another = |built: &&Crate| {
        let known = bundle.and_then(|bundle| bundle.held(&built.name));
        // Versions that are incompatible with the library's may exist beside it anyway.
        (built.name.replace('-', "_") == core || built.name == name)
            && known.is_none_or(|known| is_compatible(&known.version, &built.version))
    };
    let built = cargo.crates.values().find(is_another)?;
    Some(format!("another crate of `:dep` depends on {}", built.name))
}

/// Whether cargo would accept one version in place of the other.
fn is_compatible(one: &str, other: &str) -> bool {
    let parsed = (semver::Version::parse(one), semver::Version::parse(other));
    let (Ok(one), Ok(other)) = parsed else { return false };
    one.major == other.major && (one.major > 0 || one.minor == other.minor)
}

/// Why cargo built a crate again.
fn why(known: &Crate, now: &Crate) -> String {
    if now.version != known.version {
        return format!("version {} took the place of {}", now.version, known.version);
    }
    let more = now.features.iter().filter(|feature| !known.features.contains(feature));
    match more.map(String::as_str).collect::<Vec<_>>()[..] {
        [] if now.features == known.features => "a crate that it depends on was rebuilt".to_owned(),
        [] => "fewer of its features are asked for".to_owned(),
        ref more => format!("a later `:dep` asks for its features {}", more.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> (String, PathBuf) {
        (name.to_owned(), PathBuf::from(format!("/{name}.rlib")))
    }

    #[test]
    fn a_crate_that_comes_from_elsewhere_is_replaced_with_the_reason() {
        let named = Named { files: [file("serde"), file("rand")].into(), args: Vec::new() };
        let before = Dependencies { named, ..Dependencies::default() };
        let now = [("serde".to_owned(), PathBuf::from("/apart.rlib")), file("rand")].into();
        let apart = [("serde".to_owned(), "the library holds it without its feature rc".to_owned())];
        let replaced = before.replaced(&Cargo::default(), &now, &apart, &BTreeMap::new());
        assert_eq!(replaced, apart.into());
        assert!(before.replaced(&Cargo::default(), &before.named.files, &[], &BTreeMap::new()).is_empty());
    }

    #[test]
    fn a_crate_whose_core_is_built_apart_cannot_be_that_of_the_library() {
        let core = Crate { name: "serde_core".to_owned(), version: "1.0.0".to_owned(), features: Vec::new() };
        let mut cargo = Cargo::default();
        cargo.crates.insert(PathBuf::from("/core.rlib"), core);
        assert_eq!(conflict("serde", &cargo, None).as_deref(), Some("another crate of `:dep` depends on serde_core"));
        assert_eq!((conflict("serde_core", &cargo, None).is_some(), conflict("rand", &cargo, None)), (true, None));
        assert!(
            is_compatible("1.0.2", "1.4.0") && !is_compatible("0.8.5", "0.9.0") && !is_compatible("1.0.0", "2.0.0")
        );
    }

    #[test]
    fn a_crate_that_cargo_builds_once_more_is_told_with_what_changed() {
        let of = |version: &str, features: &[&str]| Crate {
            name: "tool".to_owned(),
            version: version.to_owned(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        };
        assert_eq!(why(&of("1.0.0", &[]), &of("2.0.0", &[])), "version 2.0.0 took the place of 1.0.0");
        assert_eq!(why(&of("1.0.0", &["a"]), &of("1.0.0", &["a", "b"])), "a later `:dep` asks for its features b");
        assert_eq!(why(&of("1.0.0", &["a"]), &of("1.0.0", &["a"])), "a crate that it depends on was rebuilt");
    }

    #[test]
    fn tokio_has_all_its_features_from_the_start() {
        let mut dependencies = Dependencies::default();
        dependencies.want("tokio", "\"1.2\"");
        assert_eq!(dependencies.lines(), ["tokio = { \"features\" = [\"full\"], \"version\" = \"1.2\" }"]);
        let mut asked = Dependencies::default();
        asked.want_runtime();
        assert_eq!(asked.lines(), [format!("tokio = {RUNTIME}")]);
    }
}
