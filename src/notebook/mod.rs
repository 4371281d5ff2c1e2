//! Notebook displays: cards, plots, viewers, progress.
