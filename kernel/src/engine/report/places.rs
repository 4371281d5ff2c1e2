//! Maps places in built code to the cells from which it was built.

use std::ops::Range;
use std::sync::Arc;

use wavemesh_cell::protocol::Place as SourcePlace;

use super::{DIM, RESET};
use crate::engine::cell::{Part, Run, page_of};

/// Finds the places of built code in the cells from which it was built.
pub struct Places {
    /// Newest last.
    runs: Vec<Arc<Run>>,
    /// Which text of a cell is meant; either one if this is not known.
    part: Option<Part>,
}

/// A byte range of a cell or a file.
pub struct Place {
    run: Arc<Run>,
    page: usize,
    /// The bytes in the text of that page.
    pub range: Range<usize>,
    /// Whether the user wrote this text; otherwise the kernel inserted it.
    pub verbatim: bool,
}

impl Place {
    fn new(run: &Arc<Run>, page: usize, in_run: Range<usize>, verbatim: bool) -> Place {
        let Range { start, end } = run.pages[page].range;
        let at = |byte: usize| byte.clamp(start, end) - start;
        Place { run: Arc::clone(run), page, range: at(in_run.start)..at(in_run.end), verbatim }
    }

    /// What people call the cell or the file.
    pub fn name(&self) -> &str {
        &self.run.pages[self.page].name
    }

    /// The text of the cell or the file.
    pub fn text(&self) -> &str {
        self.run.source.get(self.run.pages[self.page].range.clone()).unwrap_or_default()
    }
}

impl Places {
    pub fn new(runs: Vec<Arc<Run>>) -> Places {
        Places { runs, part: None }
    }

    /// Places for messages about this part of cells.
    pub fn of(runs: Vec<Arc<Run>>, part: Part) -> Places {
        Places { runs, part: Some(part) }
    }

    /// Whether a file was built from a cell.
    pub fn knows(&self, file: &str) -> bool {
        self.page(file).is_some()
    }

    fn page(&self, file: &str) -> Option<(&Arc<Run>, usize)> {
        page_of(&self.runs, file)
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        [Part::Body, Part::Items].into_iter().filter(|part| self.part.is_none_or(|known| known == *part))
    }

    /// The cell and bytes from which bytes of a built file came.
    pub fn find(&self, file: &str, bytes: Range<usize>) -> Option<Place> {
        let (run, page) = self.page(file)?;
        let (range, verbatim) = self.parts().find_map(|part| run.built(part, page)?.source_range(bytes.clone()))?;
        Some(Place::new(run, page, range, verbatim))
    }

    /// The name of a place in a built file, such as `In [3]:2:9`.
    pub fn name(&self, place: &SourcePlace) -> Option<String> {
        let place = self.at(place)?;
        let before = place.text().get(..place.range.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(format!("{}:{line}:{column}", place.name()))
    }

    /// The same, unless the place is after the cell's code: there the kernel calls code that is not in the cell, such as tests.
    pub fn name_in_cell(&self, place: &SourcePlace) -> Option<String> {
        self.at(place).filter(|place| place.verbatim || place.range.start < place.text().len())?;
        self.name(place)
    }

    /// The same for a place that the user wrote; inserted code has none.
    pub fn name_of_own(&self, place: &SourcePlace) -> Option<String> {
        self.at(place).filter(|place| place.verbatim)?;
        self.name(place)
    }

    fn at(&self, SourcePlace { file, line, column }: &SourcePlace) -> Option<Place> {
        let (run, page) = self.page(file)?;
        let (line, column) = (usize::try_from(*line).ok()?, usize::try_from(*column).ok()?);
        let found = self.parts().filter_map(|part| {
            let built = run.built(part, page)?;
            let byte = built.byte(line, column)?;
            built.source_range(byte..byte)
        });
        // A line may be in both parts; prefer the one with the user's own text.
        let (range, verbatim) = found.max_by_key(|(_, verbatim)| *verbatim)?;
        Some(Place::new(run, page, range, verbatim))
    }

    /// The line of source with its number, for a traceback.
    pub fn quote(&self, place: &SourcePlace) -> Option<String> {
        let place = self.at(place)?;
        let number = place.text().get(..place.range.start)?.matches('\n').count();
        let text = place.text().lines().nth(number)?;
        Some(format!("{DIM}{:>4} |{RESET} {text}", number + 1))
    }
}
