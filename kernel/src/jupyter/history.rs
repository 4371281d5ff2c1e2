//! What was typed, in this session and in earlier ones.
//!
//! The history is a file of JSON lines, `{"session": 3, "line": 1, "input": "…"}`, that all kernels of a user share. A
//! line is appended with one write, so that kernels do not tear each other's lines; a file that has grown too long is
//! replaced by its end in one rename. `WAVEMESH_HISTORY` names another file, or turns the file off when empty.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wire::Request;

/// Lines kept when the file is cut.
const KEPT: usize = 10_000;
/// Size at which the file is cut, in bytes.
const TOO_LONG: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    session: i64,
    line: i64,
    input: String,
    /// The text of the cell's value; only kept for the current session.
    #[serde(skip)]
    output: Option<String>,
}

/// The history of all sessions, the current one last.
pub struct History {
    file: Option<PathBuf>,
    session: i64,
    entries: Vec<Entry>,
}

impl History {
    /// Reads the user's history and begins a new session. If it cannot be read, this is logged and a new history begins in memory.
    pub fn open() -> History {
        let file = match std::env::var_os("WAVEMESH_HISTORY") {
            Some(path) if path.is_empty() => None,
            Some(path) => Some(PathBuf::from(path)),
            None => dirs::data_dir().map(|dir| dir.join("wavemesh").join("history.jsonl")),
        };
        History::from_file(file)
    }

    fn from_file(file: Option<PathBuf>) -> History {
        let (entries, session) = match file.as_deref().map(begin_session) {
            None => (Vec::new(), 1),
            Some(Ok(read)) => read,
            Some(Err(error)) => {
                super::log!("the history is kept for this run only: {error}");
                return History { file: None, session: 1, entries: Vec::new() };
            }
        };
        History { file, session, entries }
    }

    /// Adds a cell.
    pub fn add(&mut self, line: u32, input: &str) {
        let entry = Entry { session: self.session, line: i64::from(line), input: input.to_string(), output: None };
        if let Some(path) = &self.file
            && let Err(error) = append(path, &entry)
        {
            super::log!("the history is kept for this run only: {}: {error}", path.display());
            self.file = None;
        }
        self.entries.push(entry);
    }

    /// Notes the value of the cell that was added last.
    pub fn set_output(&mut self, output: &str) {
        if let Some(entry) = self.entries.last_mut() {
            entry.output = Some(output.to_string());
        }
    }

    /// The content of `history_reply`.
    pub fn reply(&self, request: &Request) -> Value {
        let with_output = request.flag("output", false);
        let found: Vec<Value> = self
            .find(request)
            .into_iter()
            .map(|entry| {
                if with_output {
                    json!([entry.session, entry.line, [entry.input, entry.output]])
                } else {
                    json!([entry.session, entry.line, entry.input])
                }
            })
            .collect();
        json!({ "status": "ok", "history": found })
    }

    fn find(&self, request: &Request) -> Vec<&Entry> {
        let limit = request.integer("n").and_then(|n| usize::try_from(n).ok());
        let mut found: Vec<&Entry> = match request.text("hist_access_type") {
            "range" => {
                let session = request.integer("session").unwrap_or(0);
                // Zero is this session; a negative number counts back from it.
                let session = if session <= 0 { self.session + session } else { session };
                let start = request.integer("start").unwrap_or(0);
                let stop = request.integer("stop").unwrap_or(i64::MAX);
                let wanted = |entry: &&Entry| entry.session == session && (start..stop).contains(&entry.line);
                return self.entries.iter().filter(wanted).collect();
            }
            "search" => {
                let pattern = match request.text("pattern") {
                    "" => "*",
                    pattern => pattern,
                };
                self.entries.iter().filter(|entry| matches_glob(pattern, &entry.input)).collect()
            }
            _ => self.entries.iter().collect(),
        };
        if request.flag("unique", false) {
            // Of equal entries, the latest stays.
            let mut seen = std::collections::HashSet::new();
            found.reverse();
            found.retain(|entry| seen.insert(&entry.input));
            found.reverse();
        }
        if let Some(limit) = limit {
            found.drain(..found.len().saturating_sub(limit));
        }
        found
    }
}

/// Reads the file, cuts it when it is too long, and takes the next number of a session.
fn begin_session(path: &Path) -> io::Result<(Vec<Entry>, i64)> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = open(path)?;
    // Two kernels that start at once must not take the same number.
    file.lock()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // Skip lines of a newer version, or lines that a full disk cut short.
    let mut entries: Vec<Entry> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let session = entries.iter().map(|entry| entry.session).max().unwrap_or(0) + 1;
    if text.len() as u64 > TOO_LONG {
        entries.drain(..entries.len().saturating_sub(KEPT));
        let mut kept = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        for entry in &entries {
            writeln!(kept, "{}", serde_json::to_string(entry)?)?;
        }
        kept.persist(path)?;
    } else if text.last().is_some_and(|byte| *byte != b'\n') {
        file.seek(SeekFrom::End(0))?;
        file.write_all(b"\n")?;
    }
    // An empty cell reserves the number for this session.
    append(path, &Entry { session, line: 0, input: String::new(), output: None })?;
    entries.retain(|entry| entry.line > 0);
    Ok((entries, session))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    open(path)?.write_all(format!("{}\n", serde_json::to_string(entry)?).as_bytes())
}

/// Jupyter's search patterns: `*` is any text, `?` any one character; the whole cell must match.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The place of the last star, and how far its text reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    p = at + 1;
                    t = reach + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(history: &History, content: Value) -> Value {
        let request = Request {
            parent: Default::default(),
            msg_type: "history_request".into(),
            parent_header: json!({}),
            content,
            metadata: json!({}),
        };
        history.reply(&request)["history"].take()
    }

    #[test]
    fn a_session_remembers_the_ones_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("deep").join("history.jsonl"));
        let mut first = History::from_file(file.clone());
        first.add(1, "let a = 1;");
        first.add(2, "a + 1");
        first.set_output("2");
        let mut second = History::from_file(file.clone());
        second.add(1, "let b\n= 2;");
        let tail = json!({ "hist_access_type": "tail", "n": 2 });
        assert_eq!(ask(&second, tail), json!([[1, 2, "a + 1"], [2, 1, "let b\n= 2;"]]));
        let range = json!({ "hist_access_type": "range", "session": -1, "start": 2, "stop": 3, "output": true });
        assert_eq!(ask(&second, range.clone()), json!([[1, 2, ["a + 1", null]]]));
        let own = json!({ "hist_access_type": "range", "session": 0, "start": 2, "stop": 3, "output": true });
        assert_eq!(ask(&first, own), json!([[1, 2, ["a + 1", "2"]]]));
        // Every session has its own number, even without cells or while another runs.
        assert_eq!((History::from_file(file.clone()).session, History::from_file(file).session), (3, 4));
    }

    #[test]
    fn search_takes_globs_and_can_be_limited() {
        let mut history = History::from_file(None);
        for (line, input) in ["let x = 1;", "x", "let y = 2;", "x", "caf\u{e9}"].iter().enumerate() {
            history.add(line as u32 + 1, input);
        }
        let search = |pattern: &str, unique: bool, n: Option<u32>| {
            ask(&history, json!({ "hist_access_type": "search", "pattern": pattern, "unique": unique, "n": n }))
        };
        assert_eq!(search("let * = ?;", false, None), json!([[1, 1, "let x = 1;"], [1, 3, "let y = 2;"]]));
        assert_eq!(search("x", true, None), json!([[1, 4, "x"]]));
        assert_eq!(search("*", false, Some(1)), json!([[1, 5, "caf\u{e9}"]]));
        assert_eq!(search("caf?", false, None), json!([[1, 5, "caf\u{e9}"]]));
        assert_eq!(search("let", false, None), json!([]));
    }

    #[test]
    fn a_damaged_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history.jsonl");
        std::fs::write(&file, "{\"session\":7,\"line\":1,\"input\":\"kept\"}\n{\"session\":8,\"li").unwrap();
        let mut history = History::from_file(Some(file.clone()));
        history.add(1, "new");
        let again = History::from_file(Some(file));
        assert_eq!(again.entries.iter().map(|entry| entry.input.as_str()).collect::<Vec<_>>(), ["kept", "new"]);
        assert_eq!(again.session, 9);
    }
}
