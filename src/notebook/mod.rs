//! Notebook displays: everything shows itself.
//!
//! A value that is [`Rich`] shows a card, plot or viewer when it ends a cell; [`display`] shows one earlier, [`Display::update`] changes it
//! in place, [`progress`] wraps a loop with a bar. The same code shows its final state under stock `evcxr_jupyter`, prints
//! text in a terminal, and writes files where `WAVEMESH_DISPLAY_DIR` says.
//!
//! ```
//! use wavemesh::notebook;
//! notebook::html("<b>hi</b>").display();
//! for step in notebook::progress(0..3).label("steps") {
//!     let _ = step;
//! }
//! notebook::clear_output(true);
//! ```

mod bundle;
mod cards;
mod colormap;
mod display;
mod frontend;
mod html;
mod png;
mod progress;
mod rich;
mod task_bars;

pub use bundle::MimeBundle;
pub use colormap::Colormap;
pub use display::{Content, Display, clear_output, display, html, image, image_file, json, latex, markdown};
pub use html::escape;
pub use progress::{Progress, ProgressBar, WithBar, progress};
pub use rich::{EvcxrDisplay, Rich, result_bundle, show, specialise};
pub use task_bars::watch_tasks;
