//! The parts of a solid and the hollows inside it, counted and removed on its grid.

use super::grid::SdfGrid;

impl SdfGrid {
    /// Number of parts of the solid that are not connected along the axes of the grid.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let two = shapes::sphere(0.2).translate([-0.5, 0.0, 0.0]).union(shapes::sphere(0.3).translate([0.5, 0.0, 0.0]));
    /// assert_eq!(two.to_grid(32)?.count_parts(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn count_parts(&self) -> usize {
        Regions::new(self, |value| value < 0.0).all.len()
    }

    /// Number of hollows: outside regions that the solid encloses.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let shell = shapes::sphere(0.6).difference(shapes::sphere(0.4));
    /// assert_eq!(shell.to_grid(32)?.count_hollows(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn count_hollows(&self) -> usize {
        Regions::new(self, |value| value >= 0.0).all.iter().filter(|region| !region.at_border).count()
    }

    /// The same solid with its hollows filled.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let shell = shapes::sphere(0.6).difference(shapes::sphere(0.4)).to_grid(32)?;
    /// let filled = shell.without_hollows();
    /// assert_eq!(filled.count_hollows(), 0);
    /// assert_eq!(filled.to_mesh()?.components().len(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn without_hollows(&self) -> Self {
        let regions = Regions::new(self, |value| value >= 0.0);
        self.turned(&regions, |region| !region.at_border)
    }

    /// The same solid without the parts that are smaller than `share` of the largest one, in samples.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let dusty = shapes::sphere(0.6).union(shapes::sphere(0.05).translate([0.8, 0.8, 0.8])).to_grid(48)?;
    /// assert_eq!((dusty.count_parts(), dusty.without_specks(0.01).count_parts()), (2, 1));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn without_specks(&self, share: f64) -> Self {
        let regions = Regions::new(self, |value| value < 0.0);
        let largest = regions.all.iter().map(|region| region.samples).max().unwrap_or(0) as f64;
        self.turned(&regions, |region| (region.samples as f64) < share * largest)
    }

    /// The same grid with the signs of some regions turned.
    fn turned(&self, regions: &Regions, which: impl Fn(&Region) -> bool) -> Self {
        let which: Vec<bool> = regions.all.iter().map(which).collect();
        let mut grid = self.clone();
        for (value, &label) in grid.values.iter_mut().zip(&regions.labels) {
            if label > 0 && which[label as usize - 1] {
                // A zero would stay outside.
                *value = if *value >= 0.0 { -value.max(f32::MIN_POSITIVE) } else { -*value };
            }
        }
        grid
    }
}

struct Region {
    samples: usize,
    /// Whether it touches a side of the grid.
    at_border: bool,
}

/// The regions of samples with a property, connected along the axes.
struct Regions {
    /// For each sample the number of its region, from 1, or 0.
    labels: Vec<u32>,
    all: Vec<Region>,
}

impl Regions {
    fn new(grid: &SdfGrid, has: impl Fn(f32) -> bool) -> Self {
        let (shape, values) = (grid.shape(), grid.values());
        let strides = [shape[1] * shape[2], shape[2], 1];
        let mut labels = vec![0u32; values.len()];
        let (mut all, mut open) = (Vec::new(), Vec::new());
        for first in 0..values.len() {
            if labels[first] != 0 || !has(values[first]) {
                continue;
            }
            let label = all.len() as u32 + 1;
            let mut region = Region { samples: 0, at_border: false };
            labels[first] = label;
            open.push(first);
            while let Some(at) = open.pop() {
                region.samples += 1;
                for axis in 0..3 {
                    let place = at / strides[axis] % shape[axis];
                    region.at_border |= place == 0 || place + 1 == shape[axis];
                    let below = (place > 0).then(|| at - strides[axis]);
                    let above = (place + 1 < shape[axis]).then(|| at + strides[axis]);
                    for next in below.into_iter().chain(above) {
                        if labels[next] == 0 && has(values[next]) {
                            labels[next] = label;
                            open.push(next);
                        }
                    }
                }
            }
            all.push(region);
        }
        Self { labels, all }
    }
}
