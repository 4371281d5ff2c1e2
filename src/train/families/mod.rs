//! Procedural shapes: families of solids, each drawn from a seed, given by their signed distance.
//!
//! Solids are unions of a few parts in the cube [-1, 1]³, with z upwards. The distances of parts are exact; a union takes the smallest,
//! which is exact outside and never too large in magnitude inside. Every solid is in one piece.

mod draw;
mod furniture;
mod hardware;
mod lamp;
mod plain;
mod vehicle;
mod vessel;

use serde::{Deserialize, Serialize};

use self::draw::Draw;
use crate::sdf::SdfGrid;
use crate::sdf::shapes::Solid;
use crate::{Error, Result, random};

/// A family of procedural solids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// A box with its own extent along each axis and rounded edges.
    Box,
    /// A torus lying in the xy plane.
    Torus,
    /// A capsule along one of the three axes.
    Capsule,
    /// A seat on four thick legs with a back.
    PlainChair,
    /// A plate on four thick legs or on a column with a foot.
    PlainTable,
    /// A chair or stool: legs, column or star of feet; back of a panel, bars or slats; arms and stretchers or none.
    Chair,
    /// A table or desk: round, square or six-sided top; three or four legs, a column or two panels; stretchers, shelf, drawers or none.
    Table,
    /// A floor or desk lamp: straight or bent arm, shade as a cone, a drum or a globe.
    Lamp,
    /// A bottle, a jar or an open vase: a profile turned about z.
    Bottle,
    /// A mug with a round or square handle, with or without a saucer.
    Mug,
    /// An aeroplane, nose along +x: wings high or low, straight or swept, with or without engines and floats.
    Aeroplane,
    /// A car, front along +x: saloon, estate, pickup or van.
    Car,
    /// A bookshelf: boards, dividers, doors and drawers.
    Bookshelf,
    /// A bolt, head up: hexagonal, square or round head, thread, nut or none.
    Bolt,
    /// A gear with teeth, bore, hub, holes or spokes, standing upright with its axis along y.
    Gear,
}

named!(Family);

impl Family {
    /// The families whose parts are thick enough for a 32³ grid.
    pub const PLAIN: [Self; 5] = [Self::Box, Self::Torus, Self::Capsule, Self::PlainChair, Self::PlainTable];

    /// The families whose parts vary, made for grids of 64³ and finer.
    pub const DETAILED: [Self; 10] = [
        Self::Chair,
        Self::Table,
        Self::Lamp,
        Self::Bottle,
        Self::Mug,
        Self::Aeroplane,
        Self::Car,
        Self::Bookshelf,
        Self::Bolt,
        Self::Gear,
    ];

    /// Every family: the plain ones, then those with details.
    pub const ALL: [Self; 15] = {
        let mut all = [Self::Box; 15];
        let (plain, detailed) = all.split_at_mut(Self::PLAIN.len());
        plain.copy_from_slice(&Self::PLAIN);
        detailed.copy_from_slice(&Self::DETAILED);
        all
    };

    /// The family's name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Torus => "torus",
            Self::Capsule => "capsule",
            Self::PlainChair => "plain_chair",
            Self::PlainTable => "plain_table",
            Self::Chair => "chair",
            Self::Table => "table",
            Self::Lamp => "lamp",
            Self::Bottle => "bottle",
            Self::Mug => "mug",
            Self::Aeroplane => "aeroplane",
            Self::Car => "car",
            Self::Bookshelf => "bookshelf",
            Self::Bolt => "bolt",
            Self::Gear => "gear",
        }
    }

    /// The family with this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] for any other name.
    ///
    /// ```
    /// use wavemesh::train::Family;
    /// assert_eq!(Family::from_name("mug")?, Family::Mug);
    /// assert!(Family::from_name("teapot").is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| Error::Unknown {
            kind: "shape family",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// One solid of a family. The same seed gives the same solid on every machine.
///
/// ```
/// use wavemesh::train::{Family, ProceduralShape};
/// let mug = ProceduralShape::new(Family::Mug, 7);
/// assert!(mug.distance([0.0, 0.0, 2.0]) > 0.0);
/// assert!(mug.sdf(32)?.to_mesh()?.is_watertight());
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProceduralShape {
    family: Family,
    solid: Solid,
}

impl ProceduralShape {
    /// Draws a solid.
    pub fn new(family: Family, seed: u64) -> Self {
        let mut draw = Draw(random::rng(seed, family as u64));
        let solid = match family {
            Family::Box | Family::Torus | Family::Capsule | Family::PlainChair | Family::PlainTable => {
                plain::plain(family, &mut draw)
            }
            Family::Chair => furniture::chair(&mut draw),
            Family::Table => furniture::table(&mut draw),
            Family::Lamp => lamp::lamp(&mut draw),
            Family::Bottle => vessel::bottle(&mut draw),
            Family::Mug => vessel::mug(&mut draw),
            Family::Aeroplane => vehicle::aeroplane(&mut draw),
            Family::Car => vehicle::car(&mut draw),
            Family::Bookshelf => furniture::bookshelf(&mut draw),
            Family::Bolt => hardware::bolt(&mut draw),
            Family::Gear => hardware::gear(&mut draw),
        };
        Self { family, solid }
    }

    /// The family of the solid.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Signed distance at a point, negative inside.
    pub fn distance(&self, p: [f32; 3]) -> f32 {
        self.solid.distance(p)
    }

    /// The signed distance on `resolution`³ samples of the cube [-1, 1]³.
    ///
    /// # Errors
    /// A resolution of zero.
    ///
    /// ```
    /// use wavemesh::train::{Family, ProceduralShape};
    /// let torus = ProceduralShape::new(Family::Torus, 0).sdf(16)?;
    /// assert_eq!(torus.shape(), [16; 3]);
    /// assert!(ProceduralShape::new(Family::Torus, 0).sdf(0).is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn sdf(&self, resolution: usize) -> Result<SdfGrid> {
        self.solid.to_grid(resolution)
    }
}
