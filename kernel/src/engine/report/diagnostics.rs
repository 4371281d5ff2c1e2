//! Shows rustc's diagnostics on the lines that the user wrote, and the kernel's own in the same form.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde_json::Value;

use super::places::{Place, Places};
use super::{BOLD_RED, RESET, hints};
use crate::engine::ExecuteError;
use crate::engine::compiler::plain_names;
use crate::engine::grammar::{Delimiters, Misplaced};
use crate::engine::rustc::{WARNINGS, place_in, spans};

/// rustc's diagnostics as one error.
pub fn compile_error(diagnostics: &[Value], places: &Places) -> ExecuteError {
    let mut traceback: Vec<String> = Vec::new();
    let mut first: Option<(String, String)> = None;
    let mut hints: Vec<String> = Vec::new();
    // If rustc could not read the code, further errors only follow from that and do not help.
    let unread = diagnostics.iter().any(is_of_syntax);
    for diagnostic in diagnostics.iter().filter(|diagnostic| !unread || is_of_syntax(diagnostic)) {
        let mut message = clean(diagnostic["message"].as_str().unwrap_or_default());
        if message.is_empty() || message.starts_with("aborting due to") || message.starts_with("could not compile") {
            continue;
        }
        let place = located(spans(diagnostic), places).into_iter().find(|span| span.primary).map(|span| span.place);
        if place.as_ref().is_some_and(|place| is_behind(place.text(), place.range.end)) {
            // The brace was added by the kernel.
            message = message.replace("found `}`", "found the end of the cell");
        }
        let rendered = render(diagnostic, &message, places);
        if traceback.contains(&rendered) {
            continue;
        }
        hints.extend(hints::unnamed_crate(&message).filter(|_| diagnostic["children"] == Value::Array(Vec::new())));
        hints.extend(place.and_then(|place| hints::of(&message, place.text(), &place.range)));
        if first.is_none() {
            let code = diagnostic["code"]["code"].as_str().unwrap_or("CompileError").to_owned();
            first = Some((code, message));
        }
        traceback.push(rendered);
    }
    hints.dedup();
    traceback.extend(hints.into_iter().map(|hint| format!("help: {hint}")));
    let (ename, evalue) = first.unwrap_or_else(|| ("CompileError".into(), "the cell did not compile".into()));
    if traceback.is_empty() {
        traceback.push(format!("{BOLD_RED}{ename}{RESET}: {evalue}"));
    }
    let traceback = traceback.iter().flat_map(|text| text.lines().map(str::to_owned).chain([String::new()])).collect();
    ExecuteError { ename, evalue, traceback }
}

/// Whether only blanks and comments follow in the cell.
fn is_behind(source: &str, at: usize) -> bool {
    let rest = source.get(at..).unwrap_or_default();
    rest.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with("//"))
}

/// Whether the code could not be parsed: such an error has no code, or a code of the lexer.
fn is_of_syntax(diagnostic: &Value) -> bool {
    let message = diagnostic["message"].as_str().unwrap_or_default();
    match diagnostic["code"]["code"].as_str() {
        Some(code) => code.starts_with("E07") && message.starts_with("unterminated"),
        None => ["expected", "unexpected", "mismatched", "missing", "this file contains", "unknown start of token"]
            .iter()
            .any(|start| message.starts_with(start)),
    }
}

/// rustc's warnings about what the user wrote in the cells of `places`, for standard error.
pub fn warnings(diagnostics: &[Value], places: &Places) -> Vec<String> {
    let shown = diagnostics.iter().filter(|diagnostic| {
        let code = diagnostic["code"]["code"].as_str().unwrap_or_default();
        let is_own = |span: &Located| {
            // The start of an item may be the `pub` that the kernel added.
            span.primary && (span.place.verbatim || code == "unconditional_recursion")
        };
        WARNINGS.contains(&code) && located(spans(diagnostic), places).iter().any(is_own)
    });
    let mut texts: Vec<String> = shown.map(|diagnostic| warning(diagnostic, places) + "\n").collect();
    texts.dedup();
    texts
}

fn warning(diagnostic: &Value, places: &Places) -> String {
    let message = clean(diagnostic["message"].as_str().unwrap_or_default());
    let spans = located(spans(diagnostic), places);
    let named = sources(&spans);
    let mut group = with_snippets(Group::with_title(Level::WARNING.primary_title(&message)), &spans, &named);
    if message.starts_with("unused `Result`") {
        group = group.element(Level::HELP.message(UNUSED_RESULT));
    } else {
        let children = diagnostic["children"].as_array().map_or(&[][..], Vec::as_slice);
        let texts = children.iter().filter_map(|child| child["message"].as_str());
        // The reader need not know which option of rustc turned a lint on.
        for text in texts.filter(|text| !text.contains("#[warn(") && !text.contains("`-W ")) {
            group = group.element(Level::NOTE.message(clean(text)));
        }
    }
    Renderer::styled().term_width(120).render(&[group])
}

/// What to do about an unused `Result`.
const UNUSED_RESULT: &str =
    "it may be an error: put `?` behind it, so that an error ends the cell, or `let _ = ` before it to ignore one";

/// An error about brackets in `range` of a cell that do not match: then nothing of the cell can run.
pub fn bracket_error(source: &str, range: Range<usize>, number: u32) -> Option<ExecuteError> {
    let delimiters = Delimiters::of(&source[range.clone()]);
    let at = |byte: usize| range.start + byte..range.start + byte + 1;
    let (message, marks) = match (delimiters.misplaced, &delimiters.open[..]) {
        (Some(Misplaced { at: close, open: None }), _) => {
            let message = format!("unexpected closing delimiter: `{}`", &source[at(close)]);
            (message, vec![(at(close), "it closes nothing; no part of the cell ran")])
        }
        (Some(Misplaced { at: close, open: Some(open) }), _) => {
            let message = format!("mismatched closing delimiter: `{}`", &source[at(close)]);
            (message, vec![(at(close), "it closes another kind of bracket"), (at(open), "than the one that is open")])
        }
        _ if let Some(start) = delimiters.unterminated => {
            let what = match &source[range.start + start..] {
                text if text.starts_with("/*") => "block comment",
                text if text.starts_with('\'') || text.starts_with("b'") => "character",
                _ => "string",
            };
            (format!("unterminated {what}"), vec![(at(start), "it begins here and has no end")])
        }
        (None, [_, ..]) => {
            let marks = delimiters.open.iter().map(|&(_, open)| (at(open), "unclosed delimiter"));
            ("this cell contains an unclosed delimiter".to_owned(), marks.collect())
        }
        _ => return None,
    };
    let annotations = marks.into_iter().enumerate().map(|(index, (range, label))| {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        kind.span(range).label(label)
    });
    let snippet = Snippet::source(source).path(format!("In [{number}]")).annotations(annotations);
    let group = Group::with_title(Level::ERROR.primary_title(&message)).element(snippet);
    let text = Renderer::styled().term_width(120).render(&[group]);
    let traceback = text.lines().map(str::to_owned).collect();
    Some(ExecuteError { ename: "CompileError".into(), evalue: message, traceback })
}

fn render(diagnostic: &Value, message: &str, places: &Places) -> String {
    let mut title = Level::ERROR.primary_title(message);
    if let Some(code) = diagnostic["code"]["code"].as_str().filter(|code| code.starts_with('E')) {
        // Without a link, because notebooks show a terminal's hyperlink as garbage. `:explain` shows the text.
        title = title.id(code);
    }
    let spans = located(spans(diagnostic), places);
    let named: Vec<(String, String)> = sources(&spans);
    let mut groups = vec![with_snippets(Group::with_title(title), &spans, &named)];
    let children = diagnostic["children"].as_array().map_or(&[][..], Vec::as_slice);
    let told: Vec<Told> = children.iter().flat_map(|child| tell(child, children, places)).collect();
    let told: Vec<(&Told, Vec<(String, String)>)> = told.iter().map(|told| (told, sources(&told.spans))).collect();
    for (Told { level, text, spans }, named) in &told {
        if spans.is_empty() {
            let last = groups.pop().unwrap_or_else(|| Group::with_level(Level::ERROR));
            groups.push(last.element(level.clone().message(text)));
        } else {
            groups.push(with_snippets(Group::with_title(level.clone().secondary_title(text)), spans, named));
        }
    }
    Renderer::styled().term_width(120).render(&groups)
}

/// A note or suggestion of a diagnostic, prepared for display.
struct Told<'a> {
    level: Level<'a>,
    text: String,
    spans: Vec<Located>,
}

/// How many ways to mend an error are shown at most.
const WAYS: usize = 4;

/// Prepares a note or suggestion of a diagnostic. A suggestion with several alternatives becomes one part for each.
fn tell<'a>(child: &Value, all: &[Value], places: &Places) -> Vec<Told<'a>> {
    let text = child["message"].as_str().unwrap_or_default();
    let level = if child["level"] == "help" { Level::HELP } else { Level::NOTE };
    let told = |text: String, spans: Vec<Located>| Told { level: level.clone(), text, spans };
    let is_internal = |text: &str| INTERNAL.iter().any(|name| text.contains(name));
    if text.is_empty() || is_internal(text) {
        return Vec::new();
    }
    if let Some(imports) = imports(child) {
        let own: Vec<&str> = imports
            .into_iter()
            .filter(|import| !is_internal(import) && !UNSTABLE.iter().any(|start| import.starts_with(start)))
            .collect();
        // The import goes above the cell's own code, which is at another place in the code for the compiler.
        return match &own[..] {
            [] => Vec::new(),
            // A cell is the root of its crate, and sees the library's prelude and the notebook's items under their own names.
            own => {
                vec![told(format!("{}:\n{}", clean(text), own.join("\n").replace("use crate::", "use ")), Vec::new())]
            }
        };
    }
    if let Some(name) =
        text.strip_prefix("you might be missing a crate named `").and_then(|rest| rest.split('`').next())
    {
        // A name that is a module of `std` is rarely meant as a crate.
        let importable = all
            .iter()
            .any(|other| imports(other).is_some_and(|imports| imports.iter().any(|import| !is_internal(import))));
        return if importable { Vec::new() } else { vec![told(hints::missing_crate(name), Vec::new())] };
    }
    let spans = child["spans"].as_array().map_or(&[][..], Vec::as_slice);
    if spans.is_empty() {
        return vec![told(clean(text), Vec::new())];
    }
    if spans.iter().any(|span| span["suggested_replacement"].as_str().is_some_and(is_internal)) {
        return Vec::new();
    }
    let ways = ways(spans).into_iter().take(WAYS);
    let ways = ways.map(|way| located(way, places)).filter(|spans| !spans.is_empty());
    ways.map(|spans| told(clean(text), spans)).collect()
}

/// Internal names of the kernel, which nobody should import.
const INTERNAL: [&str; 4] = ["wavemesh_cell", "wavemesh_dylib", "__wm", "use this_notebook::"];

/// Modules of `std` that stable Rust rejects although rustc suggests importing them.
const UNSTABLE: [&str; 2] = ["use std::sync::nonpoison::", "use std::sync::poison::"];

/// The imports that a suggestion contains, as lines.
fn imports(child: &Value) -> Option<Vec<&str>> {
    let spans = child["spans"].as_array().filter(|spans| !spans.is_empty())?;
    let replacements = spans.iter().map(|span| span["suggested_replacement"].as_str().map(str::trim));
    replacements.map(|text| text.filter(|text| text.starts_with("use ") && text.ends_with(';'))).collect()
}

/// Splits a suggestion into its alternatives: rustc lists the parts of each alternative in a row, and every alternative begins at the same
/// place.
fn ways(spans: &[Value]) -> Vec<&[Value]> {
    let start = |span: &Value| (span["file_name"].to_string(), span["byte_start"].as_u64());
    let is_suggestion = spans.iter().all(|span| span["suggested_replacement"].is_string());
    let again = spans.iter().skip(1).position(|span| start(span) == start(&spans[0])).map(|at| at + 1);
    match again {
        Some(parts) if is_suggestion && spans.len().is_multiple_of(parts) => spans.chunks(parts).collect(),
        _ => vec![spans],
    }
}

/// A span of a diagnostic that lies in a cell.
struct Located {
    place: Place,
    label: Option<String>,
    primary: bool,
    replacement: Option<String>,
}

fn located(spans: &[Value], places: &Places) -> Vec<Located> {
    spans
        .iter()
        .filter_map(|outer| {
            // Code from a macro is shown where the macro is used.
            let (file, bytes) = place_in(outer, |file| places.knows(file))?;
            let place = places.find(file, bytes)?;
            // Inserted code is not shown, except where the error itself is.
            if !place.verbatim && outer["is_primary"] != true {
                return None;
            }
            Some(Located {
                place,
                label: outer["label"].as_str().map(clean),
                primary: outer["is_primary"].as_bool().unwrap_or(false),
                replacement: outer["suggested_replacement"].as_str().map(str::to_owned),
            })
        })
        .collect()
}

/// The name and text of each cell that contains a span.
fn sources(spans: &[Located]) -> Vec<(String, String)> {
    let mut named: Vec<(String, String)> = Vec::new();
    let primary_first = spans.iter().filter(|span| span.primary).chain(spans);
    for Located { place, .. } in primary_first {
        if !named.iter().any(|(known, _)| known == place.name()) {
            named.push((place.name().to_owned(), place.text().to_owned()));
        }
    }
    named
}

fn with_snippets<'a>(mut group: Group<'a>, spans: &'a [Located], named: &'a [(String, String)]) -> Group<'a> {
    for (name, source) in named {
        let here = || spans.iter().filter(|span| name == span.place.name());
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

/// The text without internal names, and with well-known names shortened.
fn clean(text: &str) -> String {
    let paths =
        ["std::result::Result", "std::option::Option", "std::string::String", "std::vec::Vec", "std::boxed::Box"];
    paths.iter().fold(plain_names(text), |text, path| text.replace(path, path.rsplit("::").next().unwrap_or_default()))
}
