//! The card of a signed distance grid: its frame, and three slices with the surface.

use super::{Facts, picture_card};
use crate::notebook::html::{bytes, count, number};
use crate::notebook::{MimeBundle, Rich, SliceGrid};
use crate::sdf::SdfGrid;

impl Rich for SdfGrid {
    fn rich(&self) -> MimeBundle {
        let [x, y, z] = self.shape();
        let values = self.values();
        let inside = values.iter().filter(|v| **v < 0.0).count();
        let (low, high) = values
            .iter()
            .filter(|v| v.is_finite())
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let triple = |v: [f32; 3]| format!("({})", v.map(|v| number(v.into())).join(", "));
        let mut facts: Facts = vec![
            ("", format!("{x}×{y}×{z} (x, y, z)")),
            ("", bytes(4 * values.len() as u64)),
            (
                "inside",
                format!("{} cells, {:.2}%", count(inside as u64), 100.0 * inside as f64 / values.len().max(1) as f64),
            ),
            ("distance", format!("{} to {}", number(low.into()), number(high.into()))),
            ("origin", triple(self.origin())),
            ("spacing", triple(self.spacing())),
        ];
        if let Some(report) = self.sign_report() {
            let closed = if report.closed {
                "closed".to_owned()
            } else {
                format!("open, sign guessed at {} cells", count(report.guessed as u64))
            };
            facts.push(("mesh", closed));
        }
        facts.extend(self.notes().iter().map(|note| ("note", note.clone())));
        let picture = SliceGrid::new(self).and_then(|slices| slices.contour(0.0).panel(160).picture());
        picture_card("SdfGrid", &facts, None, Some(picture))
    }
}
