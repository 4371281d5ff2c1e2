//! A line of `[dependencies]`, as it stands behind `:dep`.

use std::path::Path;

/// The name and the value of what stands behind `:dep`: `name = "1"`, `name = { … }`, `name`, or the path of a crate. Paths count from
/// `home`.
pub fn parse(arguments: &str, home: &Path) -> Result<(String, String), String> {
    let arguments = arguments.trim().trim_end_matches(';').trim();
    if arguments.starts_with(['.', '/']) {
        let folder = home.join(arguments);
        let manifest = folder.join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest)
            .map_err(|error| format!("cannot read {}: {error}", manifest.display()))?;
        let table: toml::Table = text.parse().map_err(|error| format!("{}: {error}", manifest.display()))?;
        let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
        let name = name.ok_or_else(|| format!("{} names no package", manifest.display()))?;
        let folder = folder.canonicalize().unwrap_or(folder);
        return Ok((name.to_owned(), format!("{{ path = {:?} }}", folder.display().to_string())));
    }
    let Some((name, value)) = arguments.split_once('=') else {
        // `name@1.2` is how `cargo add` takes it.
        let (name, version) = arguments.split_once('@').unwrap_or((arguments, "*"));
        return check(name, format!("{version:?}"));
    };
    let table: toml::Table = format!("dependency = {value}")
        .parse()
        .map_err(|error: toml::de::Error| format!("`{}`: {}", value.trim(), error.message()))?;
    let mut value = table.get("dependency").cloned().unwrap_or(toml::Value::String("*".to_owned()));
    if let Some(path) = value.get_mut("path")
        && let Some(text) = path.as_str()
    {
        let folder = home.join(text);
        *path = toml::Value::String(folder.canonicalize().unwrap_or(folder).display().to_string());
    }
    check(name, inline(&value))
}

fn check(name: &str, value: String) -> Result<(String, String), String> {
    let name = name.trim().trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("`{name}` is not the name of a crate: `:dep regex = \"1\"`"));
    }
    Ok((name.to_owned(), value))
}

/// tokio's line with all of its features: the runtime behind `.await` would otherwise be built anew for each that comes later.
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

/// A value as it stands in a line of its own.
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

    #[test]
    fn a_dep_line_is_one_of_cargo() {
        let home = Path::new("/notes");
        for (line, name, value) in [
            ("regex", "regex", "\"*\""),
            ("regex = \"1\"", "regex", "\"1\""),
            ("regex@1.2", "regex", "\"1.2\""),
            ("my = { path = \"../my\" }", "my", "{ \"path\" = \"/notes/../my\" }"),
            (
                "s = { version = \"1\", features = [\"derive\"] }",
                "s",
                "{ \"features\" = [\"derive\"], \"version\" = \"1\" }",
            ),
        ] {
            assert_eq!(parse(line, home), Ok((name.to_owned(), value.to_owned())), "{line}");
        }
        assert!(parse("regex = 1 2", home).is_err() && parse("not a name", home).is_err());
    }
}
