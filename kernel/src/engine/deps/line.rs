//! Reads what follows `:dep`: a line of `[dependencies]`, or the arguments of `cargo add`.

use std::path::Path;

/// The names and values that follow `:dep`: `name = "1"`, `name = { … }`, the path of a crate, or the arguments of `cargo add`, which may
/// name several crates. Relative paths start at `home`.
pub fn parse(arguments: &str, home: &Path) -> Result<Vec<(String, String)>, String> {
    let arguments = arguments.trim().trim_end_matches(';').trim();
    let arguments = arguments.strip_prefix("cargo add ").unwrap_or(arguments);
    let toml = arguments.split_once('=').filter(|(name, _)| is_name(unquoted(name)));
    let Some((name, value)) = toml else { return added(arguments, home) };
    let table: toml::Table = format!("dependency = {}", value.trim_start())
        .parse()
        .map_err(|error: toml::de::Error| format!("`{}`: {}", value.trim(), error.message()))?;
    let mut value = table.get("dependency").cloned().unwrap_or(toml::Value::String("*".to_owned()));
    if let Some(path) = value.get_mut("path")
        && let Some(text) = path.as_str()
    {
        *path = toml::Value::String(of_path(text, home)?.1);
    }
    Ok(vec![(unquoted(name).to_owned(), inline(&value))])
}

/// The same for the arguments of `cargo add`.
fn added(arguments: &str, home: &Path) -> Result<Vec<(String, String)>, String> {
    let mut value = toml::Table::new();
    let (mut names, mut folders, mut features, mut rename) = (Vec::new(), Vec::new(), Vec::new(), None);
    let words = words(arguments);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (option, given) = word.split_once('=').filter(|_| word.starts_with('-')).unwrap_or((word, ""));
        let mut argument = || match given {
            "" => words.next().ok_or_else(|| format!("`{option}` needs an argument")),
            given => Ok(given),
        };
        match option {
            "-F" | "--features" => {
                let listed = argument()?.split([',', ' ']).filter(|name| !name.is_empty());
                features.extend(listed.map(toml::Value::from));
            }
            "--no-default-features" => drop(value.insert("default-features".to_owned(), false.into())),
            "--git" | "--branch" | "--tag" | "--rev" | "--registry" => {
                value.insert(option.trim_start_matches('-').to_owned(), argument()?.into());
            }
            "--path" => folders.push(argument()?),
            "--rename" => rename = Some(argument()?.to_owned()),
            _ if option.starts_with('-') => {
                return Err(format!(
                    "`{option}` has no meaning here; there are --features, --no-default-features, --git, --branch, --tag, \
                     --rev, --path, --registry and --rename"
                ));
            }
            _ if is_path(word) => folders.push(word),
            _ => names.push(word.split_once('@').map_or((word, None), |(name, version)| (name, Some(version)))),
        }
    }
    if !features.is_empty() {
        value.insert("features".to_owned(), features.into());
    }
    if let (true, Some(address)) = (names.is_empty(), value.get("git").and_then(toml::Value::as_str)) {
        let last = address.trim_end_matches('/').rsplit('/').next().unwrap_or(address);
        let name = last.trim_end_matches(".git").to_owned();
        return Ok(vec![renamed(name, value, rename)]);
    }
    let mut lines = Vec::new();
    for folder in &folders {
        let (name, folder) = of_path(folder, home)?;
        let value = value.clone().into_iter().chain([("path".to_owned(), folder.into())]).collect();
        lines.push(renamed(name, value, rename.clone()));
    }
    // For `name --path folder`, the folder tells the name.
    for (name, version) in names.into_iter().filter(|_| folders.is_empty()) {
        if !is_name(name) {
            return Err(format!("`{name}` is not the name of a crate: `:dep regex = \"1\"`"));
        }
        let mut value = value.clone();
        if version.is_some() || !value.contains_key("git") {
            value.insert("version".to_owned(), version.unwrap_or("*").into());
        }
        lines.push(renamed(name.to_owned(), value, rename.clone()));
    }
    if lines.is_empty() {
        return Err("no crate is named: `:dep regex = \"1\"`".to_owned());
    }
    Ok(lines)
}

/// The words of a line; quotes keep several words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The line of a crate, which may have another name in the notebook.
fn renamed(name: String, mut value: toml::Table, rename: Option<String>) -> (String, String) {
    let name = match rename {
        Some(new) => {
            value.insert("package".to_owned(), name.into());
            new
        }
        None => name,
    };
    let version = value.get("version").filter(|_| value.len() == 1).cloned();
    (name, inline(&version.unwrap_or(toml::Value::Table(value))))
}

/// The name of the package in a folder, and the folder's absolute path.
fn of_path(text: &str, home: &Path) -> Result<(String, String), String> {
    let folder = home.join(text);
    let manifest = folder.join("Cargo.toml");
    let content = std::fs::read_to_string(&manifest).map_err(|error| {
        format!("there is no crate in {}: its Cargo.toml cannot be read: {error}", folder.display())
    })?;
    let table: toml::Table = content.parse().map_err(|error| format!("{}: {error}", manifest.display()))?;
    let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let name = name.ok_or_else(|| format!("{} names no package", manifest.display()))?;
    let folder = folder.canonicalize().unwrap_or(folder);
    Ok((name.to_owned(), folder.display().to_string()))
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

fn is_path(name: &str) -> bool {
    name.contains('/') || name.starts_with('.')
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// tokio's line with all of its features: otherwise the runtime behind `.await` would be rebuilt for each feature that is asked for later.
pub fn with_all_of_tokio(value: &str) -> String {
    let parsed: Result<toml::Table, _> = format!("tokio = {value}").parse();
    let Some(mut entry) = parsed.ok().and_then(|mut table| table.remove("tokio")) else { return value.to_owned() };
    if let toml::Value::String(version) = entry {
        entry = toml::Value::Table([("version".to_owned(), toml::Value::String(version))].into_iter().collect());
    }
    let Some(table) = entry.as_table_mut() else { return value.to_owned() };
    let features = table.entry("features").or_insert_with(|| toml::Value::Array(Vec::new()));
    if let Some(features) = features.as_array_mut()
        && !features.iter().any(|feature| feature.as_str() == Some("full"))
    {
        features.push(toml::Value::String("full".to_owned()));
    }
    inline(&entry)
}

/// A value in the form that a single line needs.
fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key:?} = {}", inline(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        toml::Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str, home: &Path) -> Vec<String> {
        let lines = parse(line, home).unwrap_or_else(|error| panic!("{line}: {error}"));
        lines.into_iter().map(|(name, value)| format!("{name} = {value}")).collect()
    }

    #[test]
    fn a_dep_line_is_one_of_cargo() {
        for (line, expected) in [
            ("regex", "regex = \"*\""),
            ("regex = \"1\"", "regex = \"1\""),
            ("regex = \"1\"; ", "regex = \"1\""),
            (
                "s = {\n  version = \"1\",\n  features = [\n    \"derive\",\n  ],\n}",
                "s = { \"features\" = [\"derive\"], \"version\" = \"1\" }",
            ),
        ] {
            assert_eq!(told(line, Path::new("/notes")), [expected], "{line}");
        }
    }

    #[test]
    fn the_arguments_of_cargo_add_are_taken() {
        for (line, expected) in [
            ("regex@1.2", vec!["regex = \"1.2\""]),
            ("cargo add regex itertools@0.14", vec!["regex = \"*\"", "itertools = \"0.14\""]),
            (
                "serde -F derive,rc --no-default-features",
                vec![
                    "serde = { \"default-features\" = false, \"features\" = [\"derive\", \"rc\"], \"version\" = \"*\" }",
                ],
            ),
            (
                "serde@1 --features=\"derive rc\" --rename s",
                vec!["s = { \"features\" = [\"derive\", \"rc\"], \"package\" = \"serde\", \"version\" = \"1\" }"],
            ),
            (
                "--git https://example.org/me/tool.git --branch next",
                vec!["tool = { \"branch\" = \"next\", \"git\" = \"https://example.org/me/tool.git\" }"],
            ),
        ] {
            assert_eq!(told(line, Path::new("/notes")), expected, "{line}");
        }
    }

    #[test]
    fn a_crate_of_a_folder_has_the_name_in_its_manifest() -> std::io::Result<()> {
        let home = tempfile::tempdir()?;
        std::fs::create_dir(home.path().join("tool"))?;
        std::fs::write(home.path().join("tool/Cargo.toml"), "[package]\nname = \"my-tool\"")?;
        let folder = home.path().canonicalize()?.join("tool");
        let expected = format!("my-tool = {{ \"path\" = {:?} }}", folder.display().to_string());
        for line in ["./tool", "--path tool", "my-tool --path tool", "my-tool = { path = \"tool\" }"] {
            assert_eq!(told(line, home.path()), [expected.as_str()], "{line}");
        }
        Ok(())
    }

    #[test]
    fn a_line_that_names_no_crate_says_what_is_wrong() {
        for (line, said) in [
            ("regex = 1 2", "`1 2`"),
            ("regex \"1\"", "`1` is not the name of a crate"),
            ("serde --dev", "`--dev` has no meaning here"),
            ("serde -F", "`-F` needs an argument"),
            ("my = { path = \"../nothing\" }", "there is no crate in /notes/../nothing"),
            ("./nothing", "there is no crate in /notes/./nothing"),
            ("--no-default-features", "no crate is named"),
        ] {
            let error = parse(line, Path::new("/notes")).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
