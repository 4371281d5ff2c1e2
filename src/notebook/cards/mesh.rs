//! The card of a mesh.

use super::{Facts, picture_card};
use crate::mesh::Mesh;
use crate::notebook::html::{count, number};
use crate::notebook::upright::upright;
use crate::notebook::{Axis, MeshPlot, MimeBundle, Rich};

impl Rich for Mesh {
    fn rich(&self) -> MimeBundle {
        let mut facts: Facts =
            vec![("vertices", count(self.vertices().len() as u64)), ("faces", count(self.faces().len() as u64))];
        if !self.faces().is_empty() {
            let [low, high] = self.bounds();
            let side = |axis: usize| format!("{} to {}", number(low[axis].into()), number(high[axis].into()));
            let watertight = self.is_watertight();
            if self.offset() != [0.0; 3] {
                let [x, y, z] = self.offset();
                facts.push(("offset", format!("({x}, {y}, {z})")));
            }
            facts.push(("x", side(0)));
            facts.push(("y", side(1)));
            facts.push(("z", side(2)));
            if upright(self) == Axis::Z {
                facts.push(("drawn with z up:", "it could not stand on y".to_owned()));
            }
            facts.push(("watertight", if watertight { "yes" } else { "no" }.to_owned()));
            facts.push(("area", number(self.area().into())));
            if watertight {
                facts.push(("volume", number(self.volume().into())));
            }
            facts.extend(self.check().faults().into_iter().map(|fault| ("fault", fault)));
            facts.extend(self.notes().iter().map(|note| ("reader", note.clone())));
        }
        let picture = (!self.faces().is_empty()).then(|| MeshPlot::new(self).size(360, 280).picture());
        picture_card("Mesh", &facts, None, picture)
    }
}
