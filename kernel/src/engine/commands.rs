//! What commands show; and the shell commands.

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use serde_json::{Value, json};

use super::Output;
use super::grammar::table;
use super::pipes::Pipes;

/// `:help` for one command, with an example line to copy. A command is found with and without its leading `:` or `%`.
pub fn help_of(wanted: &str) -> Option<Value> {
    let bare = |name: &str| name.trim_start_matches([':', '%']).to_owned();
    let command =
        table::find(wanted).or_else(|| table::COMMANDS.iter().find(|known| bare(known.name) == bare(wanted)))?;
    let row = |what: &str, text: String| vec![what.to_owned(), text];
    let rows = match command.action {
        table::Action::Refused(reason) => vec![row("What it does", format!("`{}` {reason}", command.name))],
        table::Action::Nothing => vec![row("What it does", "Nothing in this kernel; it may stay".to_owned())],
        action => {
            // A short form shows the help of the command for which it stands.
            let listed = table::listed().find(|known| known.action == action).filter(|_| command.does.is_empty());
            let told = listed.unwrap_or(command);
            vec![row("What it does", told.does.to_owned()), row("Example", told.example.to_owned())]
        }
    };
    Some(table(&[command.name, command.arguments], &rows))
}

/// `:help`.
pub fn help() -> Value {
    let mut commands: Vec<_> = table::listed().collect();
    commands.sort_by_key(|command| command.name.trim_start_matches([':', '%']));
    let rows: Vec<Vec<String>> = commands
        .iter()
        .map(|command| vec![format!("{} {}", command.name, command.arguments).trim().to_owned(), command.does.into()])
        .collect();
    table(&["Command", "What it does"], &rows)
}

/// A table as a MIME bundle, in HTML and in plain text.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Value {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0))
        .collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    let mut text = vec![line(&head), line(&rule)];
    text.extend(rows.iter().map(|row| line(row)));
    let cells = |row: &[String], tag: &str| {
        row.iter().map(|cell| format!("<{tag} style=\"text-align:left\">{}</{tag}>", escape(cell))).collect::<String>()
    };
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>", cells(row, "td"))).collect();
    let html = format!("<table><thead><tr>{}</tr></thead><tbody>{body}</tbody></table>", cells(&head, "th"));
    json!({"data": {"text/plain": text.join("\n"), "text/html": html}, "metadata": {}})
}

/// Text that is safe inside HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number of bytes in readable form.
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// `!command`: runs it in a shell and streams what it prints. The error says how the command ended.
pub fn shell(command: &str, pipes: &Pipes, started: impl Fn(Option<Pid>)) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["RUSTC", "CARGO"] {
        shell.env_remove(name);
    }
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let mut child = shell.spawn().map_err(|error| format!("there is no shell: {error}"))?;
    started(Some(Pid::from_child(&child)));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        if let Some(stdout) = stdout {
            scope.spawn(|| stream(stdout, |text| pipes.send(Output::Stdout(text))));
        }
        if let Some(stderr) = stderr {
            stream(stderr, |text| pipes.send(Output::Stderr(text)));
        }
    });
    let status = child.wait();
    started(None);
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{command}` ended with {status}")),
        Err(error) => Err(format!("`{command}`: {error}")),
    }
}

fn stream(mut from: impl Read, send: impl Fn(String)) {
    let mut bytes = [0u8; 1 << 14];
    let mut kept = Vec::new();
    while let Ok(read) = from.read(&mut bytes) {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(&bytes[..read]);
        // If a chunk ends inside a character, its first bytes wait for the rest.
        let cut = match std::str::from_utf8(&kept) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => kept.len(),
        };
        send(String::from_utf8_lossy(&kept[..cut]).into_owned());
        kept.drain(..cut);
    }
}
