//! [`PointCloud`]: points with named channels, and the file formats for them.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::las;
#[cfg(feature = "mesh-io")]
use super::ply;
use crate::{Error, Result};

/// Points (x, y, z) with any number of further channels: intensity, colours, labels.
#[derive(Clone, Debug)]
pub struct PointCloud {
    points: Tensor,
    channels: Vec<String>,
}

impl PointCloud {
    /// A cloud of `points` (points, 3 + C) of any number type, with x, y, z first. `channels` names the further columns.
    ///
    /// # Errors
    /// Fewer than three columns, or not exactly one name for each further column.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let points = Tensor::new(&[[1f32, 2.0, 3.0, 0.5]], &Device::Cpu)?;
    /// let cloud = PointCloud::new(&points, &["intensity"])?;
    /// assert_eq!(cloud.channel("intensity")?.to_vec1::<f32>()?, [0.5]);
    /// assert_eq!(cloud.bounds()?, Some([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(points: &Tensor, channels: &[&str]) -> Result<Self> {
        const OP: &str = "PointCloud::new";
        let columns = match *points.dims() {
            [_, columns] if columns >= 3 => columns,
            _ => {
                let (got, expected) = (points.dims().to_vec(), "(points, 3 + C): x, y, z first".into());
                return Err(Error::Shape { op: OP, what: "points", got, expected });
            }
        };
        if channels.len() != columns - 3 {
            return Err(Error::Argument {
                op: OP,
                name: "channels",
                got: format!("{} names", channels.len()),
                expected: format!("{}, one for each column after x, y, z", columns - 3),
            });
        }
        let points = points.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        Ok(Self { points, channels: channels.iter().map(|&name| name.to_string()).collect() })
    }

    fn from_rows(rows: Vec<f32>, channels: Vec<String>) -> Result<Self> {
        let columns = 3 + channels.len();
        let points = rows.len() / columns;
        Ok(Self { points: Tensor::from_vec(rows, (points, columns), &Device::Cpu)?, channels })
    }

    /// Reads a file by its extension:
    ///
    /// - `.bin`: rows of f32. Four columns (x, y, z, intensity) as in KITTI and SemanticKITTI; five (with a ring or time) in files that end
    ///   in `.pcd.bin`, as in nuScenes. For others see [`load_bin`](Self::load_bin).
    /// - `.ply`: the `vertex` element's scalars, ASCII or binary.
    /// - `.npy`: an array (points, 3 + C).
    /// - `.las`: positions (relative to the first point if they are too large for f32), intensity, class, and colours.
    ///
    /// # Errors
    /// [`Error::Unknown`] for another extension, [`Error::Format`] for invalid content, [`Error::Io`] if the file cannot be read.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-cloud-example.bin");
    /// let sweep: Vec<u8> = [1f32, 2.0, 3.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect(); // x, y, z, intensity
    /// std::fs::write(&path, sweep).map_err(Error::io(&path))?;
    /// let cloud = PointCloud::load(&path)?;
    /// assert_eq!((cloud.len(), cloud.channels()), (1, &["intensity".to_string()][..]));
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "read_point_cloud")]
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let invalid =
            |format: &'static str| move |problem: String| Error::Format { path: path.to_path_buf(), format, problem };
        let read = || std::fs::read(path).map_err(Error::io(path));
        match extension {
            "bin" if name.ends_with(".pcd.bin") => Self::load_bin(path, &["intensity", "ring"]),
            "bin" => Self::load_bin(path, &["intensity"]),
            #[cfg(feature = "mesh-io")]
            "ply" => ply::read(&read()?).map_err(invalid("PLY")).and_then(|(rows, names)| Self::from_rows(rows, names)),
            "las" => las::read(&read()?).map_err(invalid("LAS")).and_then(|(rows, names)| Self::from_rows(rows, names)),
            "npy" => {
                read()?; // candle's own error does not name the path
                let array = Tensor::read_npy(path).map_err(|error| invalid("NPY")(error.to_string()))?;
                let columns = match *array.dims() {
                    [_, columns] if columns >= 3 => columns,
                    _ => {
                        return Err(invalid("NPY")(format!(
                            "an array of {:?}; points are (points, 3 + C)",
                            array.dims()
                        )));
                    }
                };
                let names: Vec<String> = (3..columns).map(|column| format!("channel {column}")).collect();
                Self::new(&array, &names.iter().map(String::as_str).collect::<Vec<_>>())
            }
            _ => Err(Error::Unknown {
                kind: "extension of a point file",
                name: extension.into(),
                known: "bin, ply, npy, las".into(),
            }),
        }
    }

    /// Reads rows of little-endian f32: x, y, z, then these channels.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is not a whole number of rows.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-rows-example.bin");
    /// let rows: Vec<u8> = (0..10).flat_map(|i| (i as f32).to_le_bytes()).collect(); // two rows of x, y, z, time, ring
    /// std::fs::write(&path, rows).map_err(Error::io(&path))?;
    /// let cloud = PointCloud::load_bin(&path, &["time", "ring"])?;
    /// assert_eq!(cloud.channel("ring")?.to_vec1::<f32>()?, [4.0, 9.0]);
    /// assert!(PointCloud::load_bin(&path, &["intensity"]).is_err()); // ten numbers are no rows of four
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load_bin(path: impl AsRef<Path>, channels: &[&str]) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let columns = 3 + channels.len();
        if bytes.len() % (4 * columns) != 0 {
            let fits: Vec<_> = (3..=8).filter(|n| bytes.len() % (4 * n) == 0).map(|n| n.to_string()).collect();
            let fits = if fits.is_empty() {
                "no number of columns up to 8 fits".into()
            } else {
                format!("{} columns would fit", fits.join(" or "))
            };
            let problem = format!(
                "its {} bytes do not divide into rows of {columns} f32 numbers; {fits}: see PointCloud::load_bin",
                bytes.len()
            );
            return Err(Error::Format { path: path.to_path_buf(), format: "point", problem });
        }
        let rows = bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        Self::from_rows(rows, channels.iter().map(|&name| name.to_string()).collect())
    }

    /// All columns (points, 3 + C) as f32 on the CPU.
    pub fn points(&self) -> &Tensor {
        &self.points
    }

    /// Positions (points, 3): x, y, z.
    ///
    /// # Errors
    /// An error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[1f32, 2.0, 3.0, 0.5]], &Device::Cpu)?, &["intensity"])?;
    /// assert_eq!(cloud.xyz()?.to_vec2::<f32>()?, [[1.0, 2.0, 3.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn xyz(&self) -> Result<Tensor> {
        Ok(self.points.narrow(1, 0, 3)?.contiguous()?)
    }

    /// A channel (points,) by name.
    ///
    /// # Errors
    /// [`Error::Unknown`] lists the existing names.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[1f32, 2.0, 3.0, 0.5]], &Device::Cpu)?, &["intensity"])?;
    /// assert_eq!(cloud.channel("intensity")?.to_vec1::<f32>()?, [0.5]);
    /// assert_eq!(cloud.channel("ring").unwrap_err().to_string(), "unknown channel `ring`; known: intensity");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn channel(&self, name: &str) -> Result<Tensor> {
        let column = self.channels.iter().position(|channel| channel == name).ok_or_else(|| Error::Unknown {
            kind: "channel",
            name: name.into(),
            known: self.channels.join(", "),
        })?;
        if self.is_empty() {
            return Ok(Tensor::zeros(0, DType::F32, &Device::Cpu)?); // candle cannot read a column of no rows
        }
        Ok(self.points.narrow(1, 3 + column, 1)?.squeeze(1)?.contiguous()?)
    }

    /// Names of the channels after x, y, z.
    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.points.dims()[0]
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lowest and highest corner (x, y, z) of the finite points; `None` if there are none.
    ///
    /// # Errors
    /// An error of candle if it cannot allocate.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let points = Tensor::new(&[[1f32, 5.0, 3.0], [4.0, 2.0, 3.0], [f32::NAN, 0.0, 0.0]], &Device::Cpu)?;
    /// assert_eq!(PointCloud::new(&points, &[])?.bounds()?, Some([[1.0, 2.0, 3.0], [4.0, 5.0, 3.0]]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn bounds(&self) -> Result<Option<[[f32; 3]; 2]>> {
        let xyz = self.xyz()?.flatten_all()?.to_vec1::<f32>()?;
        let finite = xyz.as_chunks::<3>().0.iter().filter(|point| point.iter().all(|v| v.is_finite()));
        Ok(finite.fold(None, |bounds, point| {
            let [low, high] = bounds.unwrap_or([*point; 2]);
            Some([std::array::from_fn(|a| low[a].min(point[a])), std::array::from_fn(|a| high[a].max(point[a]))])
        }))
    }
}
