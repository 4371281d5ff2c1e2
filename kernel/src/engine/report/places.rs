//! Places of built code in the cells that it came from.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use wavemesh_cell::protocol::Place as SourcePlace;

use super::{DIM, RESET};
use crate::engine::cell::{Part, Run};

/// Finds the places of built code in the cells that it came from.
pub struct Places {
    /// Newest last.
    runs: Vec<Arc<Run>>,
    /// What was built of the cells; either, if it is not known.
    part: Option<Part>,
}

/// A byte range of a cell.
pub struct Place {
    pub run: Arc<Run>,
    pub range: Range<usize>,
    /// The user wrote what stands there; else something was inserted.
    pub verbatim: bool,
}

impl Places {
    pub fn new(runs: Vec<Arc<Run>>) -> Places {
        Places { runs, part: None }
    }

    /// Of messages about this part of cells.
    pub fn of(runs: Vec<Arc<Run>>, part: Part) -> Places {
        Places { runs, part: Some(part) }
    }

    /// Whether a file is one that was built of a cell.
    pub fn knows(&self, file: &str) -> bool {
        self.run(file).is_some()
    }

    fn run(&self, file: &str) -> Option<&Arc<Run>> {
        let name = Path::new(file).file_name()?.to_str()?;
        self.runs.iter().rev().find(|run| run.label == name)
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        [Part::Body, Part::Items].into_iter().filter(|part| self.part.is_none_or(|known| known == *part))
    }

    /// The place of bytes of a built file.
    pub fn find(&self, file: &str, bytes: Range<usize>) -> Option<Place> {
        let run = self.run(file)?;
        let (range, verbatim) = self.parts().find_map(|part| run.built(part)?.source_range(bytes.clone()))?;
        Some(Place { run: Arc::clone(run), range, verbatim })
    }

    /// `In [3]:2:9` for a place in a built file.
    pub fn name(&self, place: &SourcePlace) -> Option<String> {
        let place = self.at(place)?;
        let before = place.run.source.get(..place.range.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(format!("{}:{line}:{column}", place.run.name))
    }

    /// The same, unless it lies behind the cell: there the kernel calls what is not the user's line, such as tests.
    pub fn name_in_cell(&self, place: &SourcePlace) -> Option<String> {
        self.at(place).filter(|place| place.verbatim || place.range.start < place.run.source.len())?;
        self.name(place)
    }

    /// The same for a place that the user wrote; what was inserted has none.
    pub fn name_of_own(&self, place: &SourcePlace) -> Option<String> {
        self.at(place).filter(|place| place.verbatim)?;
        self.name(place)
    }

    fn at(&self, SourcePlace { file, line, column }: &SourcePlace) -> Option<Place> {
        let run = self.run(file)?;
        let (line, column) = (usize::try_from(*line).ok()?, usize::try_from(*column).ok()?);
        let found = self.parts().filter_map(|part| {
            let built = run.built(part)?;
            let byte = built.byte(line, column)?;
            built.source_range(byte..byte)
        });
        // A line may have come into both parts: the one that has the user's own text there is meant.
        let (range, verbatim) = found.max_by_key(|(_, verbatim)| *verbatim)?;
        Some(Place { run: Arc::clone(run), range, verbatim })
    }

    /// The line of source, with its number, for a traceback.
    pub fn quote(&self, place: &SourcePlace) -> Option<String> {
        let place = self.at(place)?;
        let number = place.run.source.get(..place.range.start)?.matches('\n').count();
        let text = place.run.source.lines().nth(number)?;
        Some(format!("{DIM}{:>4} |{RESET} {text}", number + 1))
    }
}
