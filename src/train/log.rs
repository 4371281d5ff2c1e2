//! The training's log `log.csv` with one row per step, which any plotting tool can read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::record::StepRecord;
use crate::files::{create_folder_of, write_atomically};
use crate::{Error, Result};

const HEADER: &str = "step,loss,grad_norm,learning_rate,validation,seconds,processor_seconds\n";

pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a training with this history. Rows of steps that a resume has undone are removed.
    pub fn open(folder: &Path, history: &[StepRecord]) -> Result<Self> {
        let path = folder.join("log.csv");
        let rows: String = history.iter().map(row).collect();
        create_folder_of(&path)?;
        write_atomically(&path, format!("{HEADER}{rows}").as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, file })
    }

    pub fn append(&mut self, record: &StepRecord) -> Result<()> {
        self.file.write_all(row(record).as_bytes()).map_err(Error::io(&self.path))
    }
}

fn row(record: &StepRecord) -> String {
    let StepRecord { step, loss, grad_norm, learning_rate, validation, seconds, processor_seconds } = record;
    let validation = validation.map(|v| v.to_string()).unwrap_or_default();
    let processor = processor_seconds.map(|v| format!("{v:.2}")).unwrap_or_default();
    format!("{step},{loss},{grad_norm},{learning_rate},{validation},{seconds:.4},{processor}\n")
}
