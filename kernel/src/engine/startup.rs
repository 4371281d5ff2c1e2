//! Runs what evcxr's users keep for every notebook, before the first cell: `evcxr.toml` beside the notebook or in the folder of
//! configuration. Where that sets nothing, `init.evcxr` (commands) and `prelude.rs` (Rust) in that folder are used.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::grammar::table::Action;
use super::grammar::{self, Part};

/// Something to run before the first cell.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// The file from which it was read, for error messages.
    pub file: PathBuf,
    /// The code of one cell.
    pub code: String,
}

/// The settings of `evcxr.toml` that this kernel knows. It ignores the others.
#[derive(Default, Deserialize)]
struct Settings {
    #[serde(default)]
    evcxr: Table,
    #[serde(default)]
    dependencies: toml::Table,
}

#[derive(Default, Deserialize)]
struct Table {
    prelude: Option<String>,
    opt_level: Option<String>,
    #[serde(default)]
    offline_mode: bool,
}

/// The folder of configuration: `EVCXR_CONFIG_DIR`, or else `evcxr` in the user's configuration folder.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("EVCXR_CONFIG_DIR").map(PathBuf::from).or_else(|| Some(dirs::config_dir()?.join("evcxr")))
}

/// All pieces in the order in which they run; a message for each file that cannot be read.
pub fn pieces(notebook: &Path, configuration: Option<&Path>) -> Vec<Result<Piece, String>> {
    let in_configuration = |name: &str| Some(configuration?.join(name)).filter(|file| file.exists());
    let settings_file = Some(notebook.join("evcxr.toml")).filter(|file| file.exists());
    let (mut pieces, mut commands, mut prelude) = (Vec::new(), None, None);
    if let Some(file) = settings_file.or_else(|| in_configuration("evcxr.toml")) {
        match read(&file).and_then(|text| toml::from_str::<Settings>(&text).map_err(|error| told(&file, &error))) {
            Err(message) => pieces.push(Err(message)),
            Ok(Settings { evcxr, dependencies }) => {
                if evcxr.offline_mode {
                    pieces.push(Ok(Piece { file: file.clone(), code: ":offline 1".into() }));
                }
                if let Some(level) = evcxr.opt_level {
                    pieces.push(Ok(Piece { file: file.clone(), code: format!(":opt {level}") }));
                }
                let lines: Vec<String> =
                    dependencies.iter().map(|(name, wanted)| format!(":dep {name} = {wanted}")).collect();
                commands = (!lines.is_empty()).then(|| Piece { file: file.clone(), code: lines.join("\n") });
                prelude = evcxr.prelude.map(|code| Piece { file, code });
            }
        }
    }
    match (commands, in_configuration("init.evcxr")) {
        (Some(piece), _) => pieces.push(Ok(piece)),
        (None, Some(file)) => match read(&file) {
            Ok(text) => pieces.extend(apart(&text).into_iter().map(|code| Ok(Piece { file: file.clone(), code }))),
            Err(message) => pieces.push(Err(message)),
        },
        (None, None) => {}
    }
    match (prelude, in_configuration("prelude.rs")) {
        (Some(piece), _) => pieces.push(Ok(piece)),
        (None, Some(file)) => pieces.push(read(&file).map(|code| Piece { file, code })),
        (None, None) => {}
    }
    pieces
}

/// Splits the text into cells, one for each command and for the Rust between, so that one that fails does not stop the others, and `:opt`
/// applies to all cells. Lines of `:dep` that follow each other stay together, so that they are built at once.
fn apart(text: &str) -> Vec<String> {
    let mut cells: Vec<(bool, String)> = Vec::new();
    for part in grammar::parts(text, &|_| false) {
        let (is_dependency, code) = match &part {
            Part::Command(command) => {
                (command.action() == Some(Action::Dependency), format!("{} {}", command.name, command.arguments))
            }
            Part::Rust { range, .. } => (false, text[range.clone()].to_owned()),
        };
        match cells.last_mut() {
            Some((true, last)) if is_dependency => {
                last.push('\n');
                last.push_str(&code);
            }
            _ => cells.push((is_dependency, code)),
        }
    }
    cells.into_iter().map(|(_, code)| code).collect()
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| told(file, &error))
}

/// One line that says what is wrong with a file.
pub fn told(file: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {}", file.display(), problem.to_string().trim().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(notebook: &Path, configuration: &Path) -> Vec<String> {
        pieces(notebook, Some(configuration)).into_iter().map(|piece| piece.unwrap().code).collect()
    }

    #[test]
    fn without_files_nothing_runs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(pieces(folder.path(), None), []);
        assert_eq!(pieces(folder.path(), Some(folder.path())), []);
    }

    #[test]
    fn commands_run_before_the_prelude_and_crates_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let init = ":opt 2\n:dep a = \"1\"\n:dep b = { path = \"/b\" }\nuse std::mem::swap;\n";
        std::fs::write(folder.path().join("init.evcxr"), init).unwrap();
        std::fs::write(folder.path().join("prelude.rs"), "fn twice(x: i32) -> i32 { 2 * x }").unwrap();
        let expected = [
            ":opt 2",
            ":dep a = \"1\"\n:dep b = { path = \"/b\" }",
            "use std::mem::swap;",
            "fn twice(x: i32) -> i32 { 2 * x }",
        ];
        let found: Vec<String> =
            codes(folder.path(), folder.path()).iter().map(|code| code.trim().to_owned()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn settings_beside_the_notebook_come_first_and_leave_the_rest_to_the_folder() {
        let (notebook, configuration) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(configuration.path().join("evcxr.toml"), "[evcxr]\nprelude = \"struct Not;\"").unwrap();
        std::fs::write(configuration.path().join("prelude.rs"), "struct Here;").unwrap();
        let settings = "[evcxr]\noffline_mode = true\nopt_level = \"1\"\n[dependencies]\n\
                        a = \"1\"\nb = { version = \"2\", features = [\"f\"] }";
        std::fs::write(notebook.path().join("evcxr.toml"), settings).unwrap();
        let expected = [
            ":offline 1",
            ":opt 1",
            ":dep a = \"1\"\n:dep b = { features = [\"f\"], version = \"2\" }",
            "struct Here;",
        ];
        assert_eq!(codes(notebook.path(), configuration.path()), expected);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("evcxr.toml"), "[evcxr\nopt_level = 2").unwrap();
        std::fs::write(folder.path().join("prelude.rs"), "struct Here;").unwrap();
        let pieces = pieces(folder.path(), Some(folder.path()));
        let [Err(message), Ok(piece)] = &pieces[..] else { panic!("{pieces:?}") };
        assert!(message.contains("evcxr.toml: ") && !message.contains('\n'), "{message}");
        assert_eq!(piece.code, "struct Here;");
    }
}
