//! Errors as people read them: rustc's diagnostics on the lines that the user wrote, panics and failures with a backtrace that
//! starts in the user's cell.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde_json::Value;

use super::cell::Statement;
use super::compiler::{BUILT_AS, CALLED, Run};
use super::weave::underscore;
use super::{ExecuteError, commands};

const BOLD_RED: &str = "\x1b[1;31m";
const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Finds the places of built code in the cells that it came from.
pub struct Places {
    /// Newest last.
    cells: Vec<Arc<Run>>,
}

/// A byte range of a cell.
struct Place {
    run: Arc<Run>,
    range: Range<usize>,
}

impl Places {
    pub fn new(cells: Vec<Arc<Run>>) -> Places {
        Places { cells }
    }

    /// The place of bytes of the built file.
    fn find(&self, built: &str, range: Range<usize>) -> Option<Place> {
        for run in self.cells.iter().rev() {
            for statement in &run.cell.statements {
                let text = with_underscores(run, statement);
                for (at, found) in built.match_indices(text.trim_end()) {
                    if range.start >= at && range.start <= at + found.len() {
                        let start = statement.source_offset(range.start - at);
                        let end = statement.source_offset(range.end.min(at + found.len()) - at).max(start);
                        return Some(Place { run: Arc::clone(run), range: start..end });
                    }
                }
            }
        }
        self.find_by_words(built.get(range)?)
    }

    /// Imports are taken apart by evcxr, so they are found by their words.
    fn find_by_words(&self, words: &str) -> Option<Place> {
        let run = self.cells.last()?;
        let last = words.trim_end_matches(';').rsplit("::").next()?.trim();
        [words, last].into_iter().filter(|text| !text.is_empty()).find_map(|text| {
            let at = run.cell.source.match_indices(text).map(|(at, _)| at).find(|&at| {
                run.cell.source[..at]
                    .rsplit(['\n', ';'])
                    .next()
                    .is_some_and(|line| line.trim_start().starts_with("use "))
            })?;
            Some(Place { run: Arc::clone(run), range: at..at + text.len() })
        })
    }

    /// `In [3]:2:9` for a line and column of a built file.
    pub fn name(&self, file: &str, line: usize, column: usize) -> Option<String> {
        let place = self.at_line(file, line, column)?;
        let before = place.run.cell.source.get(..place.range.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(format!("In [{}]:{line}:{column}", place.run.number))
    }

    fn at_line(&self, file: &str, line: usize, column: usize) -> Option<Place> {
        if !is_built_file(file) {
            return None;
        }
        let built = std::fs::read_to_string(file).ok()?;
        let start: usize = built.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
        let text = built.get(start..)?.lines().next()?;
        let column = text.char_indices().nth(column.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
        self.find(&built, start + column..start + column)
    }

    /// The line of source, with its number, for a traceback.
    fn quote(&self, file: &str, line: usize, column: usize) -> Option<String> {
        let place = self.at_line(file, line, column)?;
        let number = place.run.cell.source.get(..place.range.start)?.matches('\n').count();
        let text = place.run.cell.source.lines().nth(number)?;
        Some(format!("{DIM}{:>4} |{RESET} {text}", number + 1))
    }
}

fn with_underscores(run: &Run, statement: &Statement) -> String {
    run.cell.placeholders.iter().fold(statement.text.clone(), |text, placeholder| {
        if text.contains(&placeholder.marker) {
            text.replace(&placeholder.marker, &underscore(&placeholder.marker))
        } else {
            text
        }
    })
}

fn is_built_file(file: &str) -> bool {
    file.ends_with("/lib.rs")
        && Path::new(file).parent().and_then(Path::parent).is_some_and(|folder| folder.ends_with("b"))
}

/// rustc's diagnostics as one error.
pub fn compile_error(diagnostics: &[Value], places: &Places) -> ExecuteError {
    let mut traceback: Vec<String> = Vec::new();
    let mut first: Option<(String, String)> = None;
    for diagnostic in diagnostics {
        let message = clean(diagnostic["message"].as_str().unwrap_or_default());
        if message.is_empty() || message.starts_with("aborting due to") || message.starts_with("could not compile") {
            continue;
        }
        let rendered = render(diagnostic, &message, places);
        if traceback.contains(&rendered) {
            continue;
        }
        if first.is_none() {
            let code = diagnostic["code"]["code"].as_str().unwrap_or("CompileError").to_owned();
            first = Some((code, message));
        }
        traceback.push(rendered);
    }
    let (ename, evalue) = first.unwrap_or_else(|| ("CompileError".into(), "the cell did not compile".into()));
    if traceback.is_empty() {
        traceback.push(format!("{BOLD_RED}{ename}{RESET}: {evalue}"));
    }
    let traceback = traceback.iter().flat_map(|text| text.lines().map(str::to_owned).chain([String::new()])).collect();
    ExecuteError { ename, evalue, traceback }
}

fn render(diagnostic: &Value, message: &str, places: &Places) -> String {
    let mut title = Level::ERROR.primary_title(message);
    if let Some(code) = diagnostic["code"]["code"].as_str().filter(|code| code.starts_with('E')) {
        // Without a link: notebooks show a terminal's hyperlink as garbage. `:explain` has the text.
        title = title.id(code);
    }
    let spans = located(diagnostic, places);
    let named: Vec<(String, String)> = sources(&spans);
    let mut groups = vec![with_snippets(Group::with_title(title), &spans, &named)];
    let children = diagnostic["children"].as_array().map_or(&[][..], Vec::as_slice);
    let child_spans: Vec<Vec<Located>> = children.iter().map(|child| located(child, places)).collect();
    let child_sources: Vec<Vec<(String, String)>> = child_spans.iter().map(|spans| sources(spans)).collect();
    for ((child, spans), named) in children.iter().zip(&child_spans).zip(&child_sources) {
        let text = child["message"].as_str().unwrap_or_default();
        if text.is_empty() || text.contains("wavemesh_cell") || text.contains("evcxr") || text.contains("__wavemesh") {
            continue;
        }
        let level = if child["level"] == "help" { Level::HELP } else { Level::NOTE };
        let elsewhere = spans.is_empty() && !child["spans"].as_array().is_none_or(Vec::is_empty);
        if spans.is_empty() && !elsewhere {
            let last = groups.pop().unwrap_or_else(|| Group::with_level(Level::ERROR));
            groups.push(last.element(level.message(clean(text))));
        } else if !spans.is_empty() {
            groups.push(with_snippets(Group::with_title(level.secondary_title(clean(text))), spans, named));
        }
    }
    Renderer::styled().term_width(120).render(&groups)
}

/// A span of a diagnostic in a cell.
struct Located {
    place: Place,
    label: Option<String>,
    primary: bool,
    replacement: Option<String>,
}

fn located(diagnostic: &Value, places: &Places) -> Vec<Located> {
    let spans = diagnostic["spans"].as_array().map_or(&[][..], Vec::as_slice);
    spans
        .iter()
        .filter_map(|outer| {
            let mut span = outer;
            // What a macro expands to is shown where the macro is used.
            while !span["file_name"].as_str().is_some_and(is_built_file) {
                span = span["expansion"].get("span")?;
            }
            let built = std::fs::read_to_string(span["file_name"].as_str()?).ok()?;
            let byte = |name: &str| span[name].as_u64().and_then(|at| usize::try_from(at).ok());
            let place = places.find(&built, byte("byte_start")?..byte("byte_end")?)?;
            Some(Located {
                place,
                label: outer["label"].as_str().map(clean),
                primary: outer["is_primary"].as_bool().unwrap_or(false),
                replacement: outer["suggested_replacement"].as_str().map(str::to_owned),
            })
        })
        .collect()
}

/// The cells that spans lie in: name and text.
fn sources(spans: &[Located]) -> Vec<(String, String)> {
    let mut named: Vec<(String, String)> = Vec::new();
    let primary_first = spans.iter().filter(|span| span.primary).chain(spans);
    for Located { place, .. } in primary_first {
        let name = format!("In [{}]", place.run.number);
        if !named.iter().any(|(known, _)| *known == name) {
            named.push((name, place.run.cell.source.clone()));
        }
    }
    named
}

fn with_snippets<'a>(mut group: Group<'a>, spans: &'a [Located], named: &'a [(String, String)]) -> Group<'a> {
    for (name, source) in named {
        let here = || spans.iter().filter(|span| *name == format!("In [{}]", span.place.run.number));
        if here().any(|span| span.replacement.is_some()) {
            let patches =
                here().filter_map(|span| Some(Patch::new(span.place.range.clone(), span.replacement.as_deref()?)));
            group = group.element(Snippet::source(source).path(name).patches(patches));
        } else {
            let annotations = here().map(|span| {
                let kind = if span.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
                kind.span(span.place.range.clone()).label(span.label.as_deref())
            });
            group = group.element(Snippet::source(source).path(name).annotations(annotations));
        }
    }
    group
}

/// Internal names do not help the reader.
fn clean(text: &str) -> String {
    text.replace("`evcxr_variable_store`", "the end of the cell")
        .replace("EvcxrUserCodeError", "the cell's error")
        .replace(BUILT_AS, CALLED)
}

/// A panic of another thread, or one that the cell caught: a line or two on standard error.
pub fn other_panic(record: &[String], places: &Places) -> String {
    let field = |index: usize| record.get(index).map_or("", String::as_str);
    let (line, column) = (field(3).parse().unwrap_or(0), field(4).parse().unwrap_or(0));
    let place = places.name(field(2), line, column).unwrap_or_else(|| short_path(field(2), line, column));
    format!("thread '{}' panicked at {place}:\n{}\n", field(5), field(1))
}

/// A panic that ended the cell.
pub fn panic(message: &str, file: &str, line: &str, column: &str, backtrace: &str, places: &Places) -> ExecuteError {
    let (line, column) = (line.parse().unwrap_or(0), column.parse().unwrap_or(0));
    let place = places.name(file, line, column).unwrap_or_else(|| short_path(file, line, column));
    let mut traceback = vec![format!("{BOLD_RED}Panic{RESET} at {CYAN}{place}{RESET}"), message.to_owned()];
    traceback.extend(places.quote(file, line, column));
    let frames = frames(backtrace, places);
    if frames.iter().any(|frame| !frame.contains(&place)) || frames.len() > 1 {
        traceback.push(String::new());
        traceback.extend(frames);
    }
    ExecuteError { ename: "Panic".into(), evalue: message.to_owned(), traceback }
}

/// An `Err` that `?` returned from the cell.
pub fn failure(message: &str, file: &str, line: &str, column: &str, type_name: &str, places: &Places) -> ExecuteError {
    let (line, column) = (line.parse().unwrap_or(0), column.parse().unwrap_or(0));
    let ename = short_type(type_name);
    let (message, backtrace) = part_backtrace(message);
    let mut traceback = vec![match places.name(file, line, column) {
        Some(place) => format!("{BOLD_RED}{ename}{RESET} at {CYAN}{place}{RESET}"),
        None => format!("{BOLD_RED}{ename}{RESET}"),
    }];
    traceback.extend(message.lines().map(str::to_owned));
    traceback.extend(places.quote(file, line, column));
    let frames = frames(backtrace, places);
    if frames.len() > 1 {
        traceback.push(String::new());
        traceback.extend(frames);
    }
    ExecuteError { ename, evalue: message.to_owned(), traceback }
}

/// Who ended a process with SIGKILL.
#[derive(Clone, Copy, PartialEq)]
pub enum Killer {
    /// The kernel itself, because the cell did not stop.
    Kernel,
    /// The system, because memory ran out.
    OutOfMemory,
    Unknown,
}

/// The process that ran the cell is gone. `how` is what the system says, `tail` the end of its standard error, `before` the variables
/// that there were.
pub fn death(how: &str, tail: &str, killer: Killer, before: &[String]) -> ExecuteError {
    let reason = match how {
        _ if killer == Killer::Kernel => "the cell did not stop by itself, so its process was ended".to_owned(),
        _ if tail.contains("has overflowed its stack") => {
            "stack overflow: the code needed more stack than there is (endless recursion?)".to_owned()
        }
        _ if tail.contains("memory allocation of") => {
            // The first one: telling of it may fail for want of memory too.
            let bytes =
                tail.split("memory allocation of ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            let asked = bytes.map_or_else(String::new, |bytes| format!(" of {}", commands::bytes(bytes)));
            format!("out of memory: an allocation{asked} failed")
        }
        _ if how.contains("SIGKILL") && killer == Killer::OutOfMemory => {
            "out of memory: the system ended the process, because all memory was in use".to_owned()
        }
        _ if how.contains("SIGKILL") => {
            "the process was killed from outside (SIGKILL); containers do that too when memory runs out".to_owned()
        }
        _ if how.contains("SIGSEGV") => "segmentation fault: unsafe code touched memory that is not its own".to_owned(),
        _ if how.contains("SIGABRT") => "the code aborted its process (SIGABRT)".to_owned(),
        _ if how.contains("SIGILL") => "illegal instruction".to_owned(),
        _ if how.contains("SIGFPE") => "arithmetic fault".to_owned(),
        _ if how.contains("SIGBUS") => "bus error".to_owned(),
        _ => match how.find("exit status") {
            Some(at) => format!("the code ended its process with {}", how[at..].trim()),
            None => how.trim().to_owned(),
        },
    };
    let lost = match before {
        [] => "No variable was lost.".to_owned(),
        names => format!("Lost variables: {}.", names.join(", ")),
    };
    let kept = "Functions, types, imports and dependencies stay defined; the next cell runs in a new process.";
    let ename = if killer == Killer::Kernel { "Interrupted" } else { "Terminated" };
    ExecuteError {
        ename: ename.into(),
        evalue: format!("{reason}. {lost}"),
        traceback: vec![format!("{BOLD_RED}{ename}{RESET}: {reason}"), lost, kept.into()],
    }
}

/// Some errors (candle's) carry a backtrace in their text.
fn part_backtrace(message: &str) -> (&str, &str) {
    let mut start = 0;
    for line in message.split_inclusive('\n') {
        if line.trim_start().starts_with("0: ") || line.trim() == "Stack backtrace:" {
            return (message[..start].trim_end(), &message[start..]);
        }
        start += line.len();
    }
    (message.trim_end(), "")
}

/// The frames of a backtrace that lie in cells, the innermost first.
fn frames(backtrace: &str, places: &Places) -> Vec<String> {
    let mut frames = Vec::new();
    let mut function = "";
    for line in backtrace.lines().map(str::trim) {
        if let Some(at) = line.strip_prefix("at ") {
            let mut parts = at.rsplitn(3, ':');
            let (column, number, file) = (parts.next(), parts.next(), parts.next());
            let number_of = |part: Option<&str>| part.and_then(|part| part.parse().ok());
            if let (Some(column), Some(number), Some(file)) = (number_of(column), number_of(number), file)
                && let Some(place) = places.name(file, number, column)
            {
                let name = function.strip_prefix("ctx::").unwrap_or(function);
                let shown = if name.starts_with("run_user_code_") { "the cell" } else { name };
                frames.push(format!("  in {shown} at {CYAN}{place}{RESET}"));
            }
        } else if let Some((_, name)) = line.split_once(": ") {
            function = name;
        }
    }
    frames.dedup();
    frames
}

/// The type without its path: `std::io::error::Error` is `Error`, so the crate stays in front of such a name.
fn short_type(name: &str) -> String {
    let base = name.split('<').next().unwrap_or(name);
    let last = base.rsplit("::").next().unwrap_or(base);
    match base.split("::").next() {
        Some(root) if last == "Error" && root != last => format!("{root}::Error"),
        _ => last.to_owned(),
    }
}

fn short_path(file: &str, line: usize, column: usize) -> String {
    let file =
        file.rsplit_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/')).map_or(file, |(_, rest)| rest);
    format!("{file}:{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_names_its_reason_and_what_was_lost() {
        let told = |how: &str, tail: &str, killer| death(how, tail, killer, &["x".to_owned()]).evalue;
        let kill = "signal: 9 (SIGKILL)";
        assert!(told(kill, "", Killer::OutOfMemory).starts_with("out of memory: the system"));
        assert!(told(kill, "", Killer::Unknown).starts_with("the process was killed from outside"));
        assert!(told(kill, "", Killer::Kernel).starts_with("the cell did not stop"));
        let failed = "memory allocation of 4294967296 bytes failed";
        let expected = "out of memory: an allocation of 4096.0 MiB failed. Lost variables: x.";
        assert_eq!(told("signal: 6 (SIGABRT)", failed, Killer::Unknown), expected);
        assert!(
            told("exit status: 3", "", Killer::Unknown).starts_with("the code ended its process with exit status: 3")
        );
    }
}
