//! [`Axis`]: an axis of space.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// An axis of space and of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// The first axis.
    X,
    /// The second axis.
    Y,
    /// The third axis.
    Z,
}

impl Axis {
    /// All three, in order.
    pub const ALL: [Self; 3] = [Self::X, Self::Y, Self::Z];

    /// 0 for x, 1 for y, 2 for z.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(["x", "y", "z"][self.index()])
    }
}

impl FromStr for Axis {
    type Err = Error;

    /// Reads `x`, `y` or `z`, in either case.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|axis| axis.to_string().eq_ignore_ascii_case(name)).ok_or_else(|| Error::Unknown {
            kind: "axis",
            name: name.into(),
            known: "x, y, z".into(),
        })
    }
}
