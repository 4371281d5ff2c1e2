//! Places of built code in the cells that it came from.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use wavemesh_cell::protocol::Place as SourcePlace;

use super::{DIM, RESET};
use crate::engine::cell::Statement;
use crate::engine::compiler::Run;
use crate::engine::weave::underscore;

/// Finds the places of built code in the cells that it came from.
pub struct Places {
    /// Newest last.
    cells: Vec<Arc<Run>>,
}

/// A byte range of a cell.
pub struct Place {
    pub run: Arc<Run>,
    pub range: Range<usize>,
}

impl Places {
    pub fn new(cells: Vec<Arc<Run>>) -> Places {
        Places { cells }
    }

    /// The place of bytes of the built file.
    pub fn find(&self, built: &str, range: Range<usize>) -> Option<Place> {
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

    /// `In [3]:2:9` for a place in a built file.
    pub fn name(&self, place: &SourcePlace) -> Option<String> {
        let place = self.at(place)?;
        let before = place.run.cell.source.get(..place.range.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(format!("In [{}]:{line}:{column}", place.run.number))
    }

    fn at(&self, place: &SourcePlace) -> Option<Place> {
        if !is_built_file(&place.file) {
            return None;
        }
        let built = std::fs::read_to_string(&place.file).ok()?;
        let line = usize::try_from(place.line).ok()?.checked_sub(1)?;
        let start: usize = built.split_inclusive('\n').take(line).map(str::len).sum();
        let text = built.get(start..)?.lines().next()?;
        let column =
            text.char_indices().nth((place.column as usize).saturating_sub(1)).map_or(text.len(), |(at, _)| at);
        self.find(&built, start + column..start + column)
    }

    /// The line of source, with its number, for a traceback.
    pub fn quote(&self, place: &SourcePlace) -> Option<String> {
        let place = self.at(place)?;
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

/// Whether a file is one that the kernel wrote for a cell.
pub fn is_built_file(file: &str) -> bool {
    file.ends_with("/lib.rs")
        && Path::new(file).parent().and_then(Path::parent).is_some_and(|folder| folder.ends_with("b"))
}
