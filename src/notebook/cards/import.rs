//! The report of an import: what each parameter got, and what was not used.

use super::{Facts, Table, picture_card};
use crate::import::ImportReport;
use crate::notebook::html::count;
use crate::notebook::{MimeBundle, Rich};

impl Rich for ImportReport {
    fn rich(&self) -> MimeBundle {
        let mut facts: Facts = vec![
            ("read", count(self.read.len() as u64)),
            ("turned", count(self.turned().count() as u64)),
            ("missing", count(self.missing.len() as u64)),
            ("unread", count(self.unread.len() as u64)),
        ];
        if let Some(format) = self.format {
            facts.push(("weights of", format.describe().into()));
        }
        if !self.prefix.is_empty() {
            facts.push(("under", self.prefix.trim_end_matches('.').into()));
        }
        // Rows that need attention come first.
        let blank = || "–".to_string();
        let missing = self.missing.iter().map(|name| vec![name.clone(), "missing: value kept".into(), blank()]);
        let unread = self.unread.iter().map(|name| vec![name.clone(), "unread".into(), blank()]);
        let read = self.read.iter().map(|tensor| {
            let what = if tensor.name == tensor.from || tensor.from.ends_with(&format!(".{}", tensor.name)) {
                tensor.change.to_string()
            } else {
                format!("{} from {}", tensor.change, tensor.from)
            };
            vec![tensor.name.clone(), what, format!("{:?}", tensor.shape)]
        });
        let header = vec!["parameter", "what was done", "shape in the file"];
        let table = Table::new(header, missing.chain(unread).chain(read));
        picture_card("Import", &facts, Some(&table), None)
    }
}
