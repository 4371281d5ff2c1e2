//! rustc's diagnostics, on the lines that the user wrote.

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde_json::Value;

use super::places::{Place, Places};
use super::{BOLD_RED, RESET};
use crate::engine::ExecuteError;
use crate::engine::compiler::plain_names;
use crate::engine::rustc::place_in;

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
        if text.is_empty() || text.contains("wavemesh_cell") || text.contains("__wm") {
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
            // What a macro expands to is shown where the macro is used.
            let (file, bytes) = place_in(outer, |file| places.knows(file))?;
            let place = places.find(file, bytes)?;
            // What was inserted is nothing to the reader, but for where an error lies.
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

/// The cells that spans lie in: name and text.
fn sources(spans: &[Located]) -> Vec<(String, String)> {
    let mut named: Vec<(String, String)> = Vec::new();
    let primary_first = spans.iter().filter(|span| span.primary).chain(spans);
    for Located { place, .. } in primary_first {
        let name = place.run.name.clone();
        if !named.iter().any(|(known, _)| *known == name) {
            named.push((name, place.run.source.clone()));
        }
    }
    named
}

fn with_snippets<'a>(mut group: Group<'a>, spans: &'a [Located], named: &'a [(String, String)]) -> Group<'a> {
    for (name, source) in named {
        let here = || spans.iter().filter(|span| *name == span.place.run.name);
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
    plain_names(text)
}
