//! `cells-from-notebook`: the code of a notebook as plain text, for diffing, searching and running elsewhere.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// Writes the Rust cells of `notebook` to `output`, or to standard output.
///
/// A line `// In[n]` comes before each cell. Cells in another language, which begin with a magic like `%%bash`, are left out with a remark.
/// The line `%%rust` of a relayed cell is dropped.
pub fn write(notebook: &Path, output: Option<&Path>) -> Result<()> {
    let text = std::fs::read(notebook).with_context(|| format!("cannot read {}", notebook.display()))?;
    let parsed = serde_json::from_slice(&text).with_context(|| format!("{} is not a notebook", notebook.display()))?;
    let code = code(&parsed).with_context(|| format!("{} is not a notebook", notebook.display()))?;
    match output {
        None => std::io::stdout().write_all(code.as_bytes()).context("cannot write to standard output"),
        Some(path) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let written = || -> Result<()> {
                let mut file = tempfile::NamedTempFile::new_in(folder)?;
                file.write_all(code.as_bytes())?;
                file.persist(path)?;
                Ok(())
            };
            written().with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

fn code(notebook: &Value) -> Result<String> {
    let cells = notebook
        .get("cells")
        .and_then(Value::as_array)
        .ok_or_else(|| anyhow!("it has no list `cells` (nbformat 4)"))?;
    let mut text = String::new();
    let mut number = 0;
    for cell in cells.iter().filter(|cell| cell.get("cell_type").and_then(Value::as_str) == Some("code")) {
        number += 1;
        let source = source(cell).with_context(|| format!("code cell {number}"))?;
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("// In[{number}]\n"));
        let first = source.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let body = match first.strip_prefix("%%rust") {
            Some(_) => source.split_once('\n').map_or("", |(_, body)| body),
            None if first.starts_with("%%") => {
                text.push_str(&format!("// left out: {first}\n"));
                continue;
            }
            None => &source,
        };
        text.push_str(body.trim_end());
        text.push('\n');
    }
    Ok(text)
}

/// A source is a string or a list of lines.
fn source(cell: &Value) -> Result<String> {
    match cell.get("source") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(lines)) => lines
            .iter()
            .map(|line| line.as_str().ok_or_else(|| anyhow!("a line of `source` is not a string")))
            .collect(),
        _ => bail!("it has no `source`"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn code_cells_come_out_in_order() {
        let notebook = json!({ "cells": [
            { "cell_type": "markdown", "source": "# Title" },
            { "cell_type": "code", "source": ["let x = 1;\n", "x"] },
            { "cell_type": "code", "source": "%%bash\nls" },
            { "cell_type": "code", "source": "%%rust\nx + 1\n" },
        ]});
        assert_eq!(
            code(&notebook).unwrap(),
            "// In[1]\nlet x = 1;\nx\n\n// In[2]\n// left out: %%bash\n\n// In[3]\nx + 1\n"
        );
    }

    #[test]
    fn what_is_not_a_notebook_says_why() {
        assert_eq!(code(&json!({})).unwrap_err().to_string(), "it has no list `cells` (nbformat 4)");
        let cell = json!({ "cells": [{ "cell_type": "code" }] });
        assert_eq!(format!("{:#}", code(&cell).unwrap_err()), "code cell 1: it has no `source`");
    }
}
