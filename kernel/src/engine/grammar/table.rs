//! The one table of commands.

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Help,
    Variables,
    Type,
    Dependency,
    OptLevel,
    /// Times the cell, or the rest of its own line.
    Time,
    /// The same, averaged over many runs.
    TimeOften,
    Test,
    Timing,
    Shell,
    Export,
    Load,
    Configure,
    Document,
    Clear,
    Restart,
    Grace,
    Offline,
    Version,
    ShowDependencies,
    Explain,
    Environment,
    BuildEnvironment,
    CompileFolder,
    /// Does nothing: it is meant for another kernel.
    Nothing,
    /// Cannot be done here, for this reason.
    Refused(&'static str),
}

/// A command.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    pub arguments: &'static str,
    /// The text for `:help`; empty if `:help` does not list the command.
    pub does: &'static str,
    /// A line to copy, shown by `:help` with this command's name.
    pub example: &'static str,
    pub action: Action,
}

const fn command(
    name: &'static str,
    arguments: &'static str,
    does: &'static str,
    example: &'static str,
    action: Action,
) -> Command {
    Command { name, arguments, does, example, action }
}

/// A command that `:help` and completion do not mention.
const fn unlisted(name: &'static str, action: Action) -> Command {
    command(name, "", "", "", action)
}

const LINKED: Action = Action::Refused("has no effect here: cells are built by rustc against the compiled library");
const SHELL: Action = Action::Refused("belongs to IPython; begin each line of the shell with `!`");
const PROFILE: Action = Action::Refused("belongs to IPython; `%timeit EXPRESSION` says how long an expression takes");
const PYTHON: Action = Action::Refused("is a command of the Python kernel; this notebook runs in the Rust kernel");

/// Every command.
pub static COMMANDS: [Command; 75] = [
    command(":help", "COMMAND", "All commands, or one with an example", ":help :dep", Action::Help),
    command(":vars", "", "Your variables, with types, shapes and sizes", ":vars", Action::Variables),
    command(
        ":dep",
        "NAME = \"VERSION\"",
        "Add a crate; also NAME = { … } as in Cargo.toml, or a PATH",
        r#":dep rand = { version = "0.9", features = ["small_rng"] }"#,
        Action::Dependency,
    ),
    command(
        ":opt",
        "LEVEL",
        "Optimisation 0 to 3: of this cell when code follows, else of all cells from now on",
        ":opt 3",
        Action::OptLevel,
    ),
    command(
        "%time",
        "EXPRESSION",
        "Run the expression, or without one the cell, and say how long it took",
        "%time (0..1000).sum::<u64>()",
        Action::Time,
    ),
    command(
        "%timeit",
        "EXPRESSION",
        "Run the expression, or without one the cell, many times and say how long one run takes",
        "%timeit (0..1000).sum::<u64>()",
        Action::TimeOften,
    ),
    command(
        ":test",
        "NAME",
        "Run the notebook's tests again: all, or those with NAME in theirs",
        ":test parser",
        Action::Test,
    ),
    command("!", "COMMAND", "Run a shell command", "!ls -l", Action::Shell),
    command(
        ":export",
        "DIR",
        "Write the cells so far as a Cargo project that builds",
        ":export my_project",
        Action::Export,
    ),
    command(":save", "DIR", "The same as :export", ":save my_project", Action::Export),
    command(
        ":load",
        "FILE",
        "Run the code of a .rs file, the cells of a notebook, or what :save wrote",
        ":load helpers.rs",
        Action::Load,
    ),
    command(":load_config", "", "Run evcxr.toml, init.evcxr and prelude.rs again", ":load_config", Action::Configure),
    command(":doc", "NAME", "Documentation of a name; so does a cell `?NAME`", ":doc Vec::push", Action::Document),
    command(":clear", "", "Forget all variables and items", ":clear", Action::Clear),
    command(":restart", "", "Start a new process for your code: variables go, items stay", ":restart", Action::Restart),
    command(
        ":grace",
        "SECONDS",
        "How long a stopped cell may take to notice, before its thread is left behind (2)",
        ":grace 10",
        Action::Grace,
    ),
    command(":type", "NAME", "The type of a variable", ":type x", Action::Type),
    command(":t", "NAME", "Short for :type", ":t x", Action::Type),
    command(":show_deps", "", "The crates that were added", ":show_deps", Action::ShowDependencies),
    command(
        ":explain",
        "CODE",
        "Explain a compile error by its code, or the last one",
        ":explain E0308",
        Action::Explain,
    ),
    command(
        ":env",
        "KEY=VALUE",
        "Set a variable of the environment (then :restart)",
        ":env RUST_LOG=debug",
        Action::Environment,
    ),
    command(
        ":build_env",
        "KEY=VALUE",
        "Set a variable of the environment of builds",
        ":build_env CC=clang",
        Action::BuildEnvironment,
    ),
    command(":offline", "0/1", "Build without the network", ":offline 1", Action::Offline),
    command(":timing", "", "Say after each cell how long it took", ":timing", Action::Timing),
    command(":version", "", "The versions of the kernel and of the compiler", ":version", Action::Version),
    command(":last_compile_dir", "", "Where the code for rustc is written", ":last_compile_dir", Action::CompileFolder),
    unlisted("%%time", Action::Time),
    unlisted("%%timeit", Action::TimeOften),
    unlisted(":h", Action::Help),
    unlisted(":?", Action::Help),
    unlisted(
        ":efmt",
        Action::Refused("has no effect here: an error is shown with all that it says of itself and of its causes"),
    ),
    unlisted(":preserve_vars_on_panic", Action::Nothing),
    unlisted(":quit", Action::Refused("has no effect here: use the frontend's shut-down to end the kernel")),
    unlisted(":q", Action::Refused("has no effect here: use the frontend's shut-down to end the kernel")),
    unlisted(":toolchain", LINKED),
    unlisted(":linker", LINKED),
    unlisted(":codegen_backend", LINKED),
    unlisted(":allow_static_linking", LINKED),
    unlisted(":sccache", LINKED),
    unlisted(":cache", LINKED),
    unlisted(":clear_cache", LINKED),
    unlisted(":time_passes", LINKED),
    unlisted(":types", LINKED),
    unlisted(":fmt", LINKED),
    // Notebooks use these to load this kernel in a Python notebook, or to mark a cell as Rust.
    unlisted("%load_ext", Action::Nothing),
    unlisted("%reload_ext", Action::Nothing),
    unlisted("%%rust", Action::Nothing),
    unlisted("%rust_mode", Action::Nothing),
    // The magics of IPython that people try first.
    unlisted("%who", Action::Variables),
    unlisted("%whos", Action::Variables),
    unlisted("%lsmagic", Action::Help),
    unlisted("%quickref", Action::Help),
    unlisted("%reset", Action::Refused("belongs to IPython; `:clear` forgets all variables and items")),
    unlisted("%env", Action::Refused("belongs to IPython; `:env KEY=VALUE` sets a variable of the environment")),
    unlisted("%run", Action::Refused("belongs to IPython; `:load FILE` runs the code of a file")),
    unlisted("%load", Action::Refused("belongs to IPython; `:load FILE` runs the code of a file")),
    unlisted("%pinfo", Action::Refused("belongs to IPython; a cell `?NAME` shows the documentation of a name")),
    unlisted(
        "%cd",
        Action::Refused("belongs to IPython; `std::env::set_current_dir(\"folder\")?;` changes the folder"),
    ),
    unlisted("%pwd", Action::Refused("belongs to IPython; `!pwd` says which folder it is")),
    unlisted("%ls", Action::Refused("belongs to IPython; `!ls` lists the files")),
    unlisted("%cargo", Action::Refused("is not needed; `:dep NAME = \"VERSION\"` adds a crate")),
    unlisted("%prun", PROFILE),
    unlisted("%%prun", PROFILE),
    unlisted("%matplotlib", Action::Refused("belongs to IPython; pictures of Rust show without it")),
    unlisted("%%bash", SHELL),
    unlisted("%%sh", SHELL),
    unlisted("%%capture", Action::Refused("belongs to IPython; a `;` behind the last expression hides its value")),
    unlisted(
        "%%writefile",
        Action::Refused("belongs to IPython; `std::fs::write(\"file\", \"text\")?;` writes a file"),
    ),
    unlisted(
        "%%html",
        Action::Refused("belongs to IPython; show HTML from Rust, by `evcxr_display` or the library's `display`"),
    ),
    unlisted("%rust", PYTHON),
    unlisted("%rust_push", PYTHON),
    unlisted("%rust_pull", PYTHON),
    unlisted("%%python", PYTHON),
    unlisted("%pip", PYTHON),
    unlisted("%conda", PYTHON),
];

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The commands that `:help` and completion mention.
pub fn listed() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(|command| !command.does.is_empty())
}

/// The command whose name is most similar to `name`.
pub fn nearest(name: &str) -> Option<&'static str> {
    let scored = listed().map(|known| (strsim::damerau_levenshtein(known.name, name), known.name));
    scored.min().filter(|(distance, known)| *distance <= 1 + known.len() / 3).map(|(_, known)| known)
}

/// The magics with the same meaning in Rust cells under the Python kernel; a cell that starts with one may be Rust.
#[cfg(test)]
fn relayed() -> Vec<&'static str> {
    COMMANDS
        .iter()
        .filter(|command| matches!(command.action, Action::Time | Action::TimeOften))
        .map(|command| command.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        for (index, command) in COMMANDS.iter().enumerate() {
            assert!(!COMMANDS[..index].iter().any(|earlier| earlier.name == command.name), "{}", command.name);
        }
    }

    #[test]
    fn a_misspelt_command_is_guessed_and_nonsense_is_not() {
        assert_eq!(nearest(":var"), Some(":vars"));
        assert_eq!(nearest(":hlep"), Some(":help"));
        assert_eq!(nearest("%itme"), Some("%time"));
        assert_eq!(nearest(":completely_different"), None);
    }

    #[test]
    fn the_python_relay_knows_the_same_magics() {
        let cells = include_str!("../../../python/src/wavemesh_kernel/cells.py");
        let quoted: Vec<String> = relayed().iter().map(|name| format!("\"{name}\"")).collect();
        let line = format!("TIMED = ({})", quoted.join(", "));
        assert!(cells.contains(&line), "kernel/python/src/wavemesh_kernel/cells.py must say: {line}");
    }
}
