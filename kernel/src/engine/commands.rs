//! Commands of the kernel's own, and the table of all there are.

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use serde_json::{Value, json};

use super::Output;
use super::pipes::Pipes;

/// Commands that the kernel answers itself: name, arguments, what it does.
pub const OWN: [(&str, &str, &str); 13] = [
    (":help", "", "This table"),
    (":vars", "", "Your variables, with types and sizes"),
    (":dep", "NAME = \"VERSION\"", "Add a crate; also NAME = { … } as in Cargo.toml, or a PATH"),
    (":opt", "LEVEL", "Optimisation 0 to 3: of this cell when code follows, else of all cells from now on"),
    ("%time", "", "Run the cell and say how long each part took"),
    ("!", "COMMAND", "Run a shell command"),
    (":export", "DIR", "Write the cells so far as a Cargo project that builds"),
    (":save", "DIR", "The same as :export"),
    (":load", "FILE", "Run the code of a .rs file, the cells of a notebook, or what :save wrote"),
    (":doc", "NAME", "Documentation of a name"),
    (":clear", "", "Forget all variables and items"),
    (":restart", "", "Start a new process for your code: variables go, items stay"),
    (":grace", "SECONDS", "How long a stopped cell may take to stop by itself (2)"),
];

/// evcxr's commands that are passed on to it.
const PASSED_ON: [(&str, &str, &str); 12] = [
    (":type", "NAME", "The type of a variable"),
    (":t", "NAME", "Short for :type"),
    (":show_deps", "", "The crates that were added"),
    (":explain", "", "Explain the last compile error"),
    (":efmt", "FORMAT", "How an error from `?` is shown"),
    (":env", "KEY=VALUE", "Set a variable of the environment (then :restart)"),
    (":build_env", "KEY=VALUE", "Set a variable of the environment of builds"),
    (":offline", "0/1", "Build without the network"),
    (":preserve_vars_on_panic", "0/1", "Whether variables outlive a panic"),
    (":timing", "", "Say after each cell how long it took"),
    (":version", "", "The versions of the kernel, of evcxr and of the compiler"),
    (":last_compile_dir", "", "Where evcxr writes its code"),
];

/// Whether evcxr knows the command.
pub fn is_passed_on(name: &str) -> bool {
    PASSED_ON.iter().any(|(known, ..)| *known == name)
        || [":internal_debug", ":last_error_json", ":load_config"].contains(&name)
}

/// Every command's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().chain(&PASSED_ON).map(|(name, ..)| *name)
}

/// `:help`.
pub fn help() -> Value {
    let mut rows: Vec<_> = OWN.iter().chain(&PASSED_ON).collect();
    rows.sort_by_key(|(name, ..)| name.trim_start_matches([':', '%']));
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, args, does)| vec![format!("{name} {args}").trim().to_owned(), (*does).to_owned()])
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

/// The command whose name is most like `name`.
pub fn nearest(name: &str) -> Option<&'static str> {
    let scored = names().map(|known| (strsim::damerau_levenshtein(known, name), known));
    scored.min().filter(|(distance, known)| *distance <= 1 + known.len() / 3).map(|(_, known)| known)
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// `!command`: runs it in a shell and streams what it prints. The error says how it ended.
pub fn shell(
    command: &str,
    pipes: &Pipes,
    path: Option<std::ffi::OsString>,
    started: impl Fn(Option<Pid>),
) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["RUSTC", "CARGO", super::shim::SOCKET, "EVCXR_TMPDIR"] {
        shell.env_remove(name);
    }
    if let Some(path) = path {
        shell.env("PATH", path);
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
        // A character that is cut in two waits for its other half.
        let cut = match std::str::from_utf8(&kept) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => kept.len(),
        };
        send(String::from_utf8_lossy(&kept[..cut]).into_owned());
        kept.drain(..cut);
    }
}
