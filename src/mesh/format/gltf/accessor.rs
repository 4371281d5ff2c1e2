//! Accessors: the numbers of a file, wherever they are stored.

use std::cell::{Cell, OnceCell};
use std::path::Path;

use super::document::{Root, Sparse, SparsePart};
use super::external::external;
use super::{UNPACK, get};

/// How many numbers may be read for each byte of the buffers, and in any file: primitives may share numbers, but not without limit.
const MOST_READ: (usize, usize) = (64, 1 << 26);

/// The data of a file.
pub(super) struct Data<'a> {
    root: &'a Root,
    blob: Option<&'a [u8]>,
    folder: Option<&'a Path>,
    /// The buffers; each is read when the geometry needs it.
    buffers: Vec<OnceCell<Vec<u8>>>,
    /// Numbers that may still be read.
    to_read: Cell<usize>,
}

impl<'a> Data<'a> {
    /// The data of a document with the binary chunk `blob`; its other buffers are files in `folder`.
    pub fn new(root: &'a Root, blob: Option<&'a [u8]>, folder: Option<&'a Path>) -> Self {
        let announced =
            root.buffers.iter().fold(0usize, |sum, buffer| sum.saturating_add(buffer.byte_length.min(1 << 40)));
        let to_read = Cell::new(announced.saturating_mul(MOST_READ.0).saturating_add(MOST_READ.1));
        Self { root, blob, folder, buffers: root.buffers.iter().map(|_| OnceCell::new()).collect(), to_read }
    }

    /// Counts numbers that are about to be read.
    fn spend(&self, count: usize) -> Result<(), String> {
        self.to_read.set(self.to_read.get().checked_sub(count).ok_or("primitives name the same numbers too often")?);
        Ok(())
    }

    /// All numbers of an accessor of the given kind, item by item; normalized integers become fractions.
    pub fn numbers(&self, index: usize, kind: &str) -> Result<Vec<f64>, String> {
        let accessor = get(&self.root.accessors, index, "accessor")?;
        if accessor.kind != kind {
            return Err(format!("accessor {index} is {}, expected {kind}", accessor.kind));
        }
        let component = Scalar::from_code(accessor.component_type)
            .ok_or_else(|| format!("accessor {index} has the unknown component type {}", accessor.component_type))?;
        let width = match kind {
            "VEC4" => 4,
            "VEC3" => 3,
            _ => 1,
        };
        let place = |problem: String| format!("accessor {index} ({} items) {problem}", accessor.count);
        let sparse = accessor.sparse.as_ref().map_or(0, |sparse| sparse.count);
        if sparse > accessor.count {
            return Err(place(format!("has {sparse} sparse values")));
        }
        let mut numbers = match accessor.buffer_view {
            Some(view) => {
                let items = Items { view, offset: accessor.byte_offset, count: accessor.count };
                self.items(items, component, width).map_err(place)?
            }
            // Without a view all numbers are zero, which only a sparse accessor uses.
            None => {
                let given: usize = self.root.buffers.iter().map(|buffer| buffer.byte_length.min(1 << 40)).sum();
                if accessor.sparse.is_none() || accessor.count > given.saturating_mul(64) {
                    return Err(place("has no data".into()));
                }
                let bytes = accessor.count.saturating_mul(8 * width);
                crate::memory::check("Mesh::load", || format!("accessor {index}"), bytes).map_err(|e| e.to_string())?;
                self.spend(accessor.count.saturating_mul(width))?;
                vec![0.0; accessor.count * width]
            }
        };
        if let Some(Sparse { count, indices, values }) = &accessor.sparse {
            let items = |part: &SparsePart| Items { view: part.buffer_view, offset: part.byte_offset, count: *count };
            let code = indices
                .component_type
                .and_then(Scalar::from_code)
                .ok_or_else(|| place("has sparse indices of no type".into()))?;
            let at = self.items(items(indices), code, 1).map_err(place)?;
            let values = self.items(items(values), component, width).map_err(place)?;
            for (at, value) in at.into_iter().zip(values.chunks_exact(width)) {
                let at = at as usize;
                let item = numbers.get_mut(at * width..(at + 1) * width);
                item.ok_or_else(|| place(format!("has a sparse value for item {at}")))?.copy_from_slice(value);
            }
        }
        if accessor.normalized {
            numbers.iter_mut().for_each(|number| *number = (*number / component.largest()).max(-1.0));
        }
        Ok(numbers)
    }

    fn items(&self, Items { view, offset, count }: Items, component: Scalar, width: usize) -> Result<Vec<f64>, String> {
        let view = get(&self.root.buffer_views, view, "bufferView")?;
        if let Some(name) = view.extensions.keys().find(|name| name.ends_with("_meshopt_compression")) {
            return Err(format!("is compressed by {name}; {UNPACK}"));
        }
        let buffer = self.buffer(view.buffer)?;
        let size = component.size() * width;
        let stride = view.byte_stride.unwrap_or(size);
        let outside = || "reaches outside its buffer".to_string();
        let bytes = view.byte_offset.checked_add(view.byte_length).and_then(|end| buffer.get(view.byte_offset..end));
        let bytes = bytes.and_then(|bytes| bytes.get(offset..)).ok_or_else(outside)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let needed = (count - 1).checked_mul(stride).and_then(|n| n.checked_add(size));
        if stride < size || needed.is_none_or(|needed| needed > bytes.len()) {
            return Err(outside());
        }
        self.spend(count.saturating_mul(width))?;
        let item = |i: usize| bytes[i * stride..][..size].chunks_exact(component.size()).map(|b| component.decode(b));
        Ok((0..count).flat_map(item).collect())
    }

    fn buffer(&self, index: usize) -> Result<&[u8], String> {
        let cell = get(&self.buffers, index, "buffer")?;
        if let Some(bytes) = cell.get() {
            return Ok(bytes);
        }
        let buffer = &self.root.buffers[index];
        let bytes = match &buffer.uri {
            Some(uri) => external(uri, self.folder)?,
            None if index == 0 => self.blob.ok_or("it has no binary chunk, but a buffer refers to it")?.to_vec(),
            None => return Err(format!("buffer {index} has no data")),
        };
        if bytes.len() < buffer.byte_length {
            let (has, wants) = (bytes.len(), buffer.byte_length);
            return Err(format!("buffer {index} announces {wants} bytes and has {has}; was it cut off?"));
        }
        Ok(cell.get_or_init(|| bytes))
    }
}

/// Where the items of an accessor are stored.
struct Items {
    view: usize,
    offset: usize,
    count: usize,
}

/// The type of a number, with OpenGL's codes.
#[derive(Clone, Copy)]
enum Scalar {
    I8,
    U8,
    I16,
    U16,
    U32,
    F32,
}

impl Scalar {
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            5120 => Self::I8,
            5121 => Self::U8,
            5122 => Self::I16,
            5123 => Self::U16,
            5125 => Self::U32,
            5126 => Self::F32,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::U32 | Self::F32 => 4,
        }
    }

    /// The integer that stands for 1 in normalized numbers.
    fn largest(self) -> f64 {
        match self {
            Self::I8 => i8::MAX.into(),
            Self::U8 => u8::MAX.into(),
            Self::I16 => i16::MAX.into(),
            Self::U16 => u16::MAX.into(),
            Self::U32 => u32::MAX.into(),
            Self::F32 => 1.0,
        }
    }

    fn decode(self, b: &[u8]) -> f64 {
        match self {
            Self::I8 => (b[0] as i8).into(),
            Self::U8 => b[0].into(),
            Self::I16 => i16::from_le_bytes([b[0], b[1]]).into(),
            Self::U16 => u16::from_le_bytes([b[0], b[1]]).into(),
            Self::U32 => u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
            Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        }
    }
}
