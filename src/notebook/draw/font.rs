//! The bundled font, for drawings with text on systems without fonts.

use std::sync::Once;

use plotters::style::{FontStyle, register_font as register};

pub(super) static FONT: &[u8] = include_bytes!("../assets/Roboto-Regular-subset.ttf");
/// The family names that stand for the bundled font: those of plotters' examples.
pub(super) const FAMILIES: [&str; 6] = ["sans-serif", "serif", "monospace", "sans", "Arial", "Calibri"];

/// Gives plotters the bundled font, for measuring text.
pub(crate) fn register_font() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        for family in FAMILIES {
            // The bytes are a font: a test draws with it.
            let _ = register(family, FontStyle::Normal, FONT);
        }
    });
}
