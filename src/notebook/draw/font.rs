//! The bundled font, for drawings with text on systems without fonts.

use std::sync::Once;

use plotters::style::{FontStyle, register_font as register};

pub(super) static FONT: &[u8] = include_bytes!("../assets/Roboto-Regular-subset.ttf");
/// The family names that select the bundled font: those in plotters' examples.
pub(super) const FAMILIES: [&str; 6] = ["sans-serif", "serif", "monospace", "sans", "Arial", "Calibri"];

/// Gives the bundled font to plotters, for measuring text.
pub(crate) fn register_font() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        for family in FAMILIES {
            // These bytes are a valid font: a test draws with it.
            let _ = register(family, FontStyle::Normal, FONT);
        }
    });
}
