//! PLY, ASCII and binary of either byte order, by the crate `ply-rs-bw`.

use std::io::{BufRead, Cursor, Write};

use ply_rs_bw::parser::{Parser, Reader};
use ply_rs_bw::ply::{ElementDef, Encoding, Property, PropertyAccess, PropertyAccessResult, PropertyType, ScalarType};

use super::Raw;
use crate::mesh::{Mesh, polygon};

/// A row of the file's `vertex` element, of which the position is kept.
struct Vertex([f32; 3]);

/// A row of the file's `face` element; indices that fit no `u32` become `u32::MAX`, which is never in range.
struct Face(Vec<u32>);

/// A row of any other element.
struct Skipped;

impl PropertyAccess for Skipped {
    fn new() -> Self {
        Self
    }
}

impl PropertyAccess for Vertex {
    fn new() -> Self {
        Self([f32::NAN; 3])
    }

    fn set_property(&mut self, name: &str, property: Property) -> PropertyAccessResult {
        let axis = match name {
            "x" => 0,
            "y" => 1,
            "z" => 2,
            _ => return PropertyAccessResult::Ignored,
        };
        let Some(coordinate) = property.to_f32_lossy() else { return PropertyAccessResult::UnsupportedType };
        self.0[axis] = coordinate;
        PropertyAccessResult::Set
    }
}

impl PropertyAccess for Face {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn set_property(&mut self, name: &str, property: Property) -> PropertyAccessResult {
        fn indices<T: TryInto<u32>>(list: Vec<T>) -> Vec<u32> {
            list.into_iter().map(|v| v.try_into().unwrap_or(u32::MAX)).collect()
        }
        if name != "vertex_indices" && name != "vertex_index" {
            return PropertyAccessResult::Ignored;
        }
        self.0 = match property {
            Property::ListChar(list) => indices(list),
            Property::ListUChar(list) => indices(list),
            Property::ListShort(list) => indices(list),
            Property::ListUShort(list) => indices(list),
            Property::ListInt(list) => indices(list),
            Property::ListUInt(list) => indices(list),
            _ => return PropertyAccessResult::UnsupportedType,
        };
        PropertyAccessResult::Set
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let mut reader = Reader::new(Cursor::new(bytes));
    let header = Parser::<Skipped>::new().read_header(&mut reader).map_err(|e| e.to_string())?;
    let mut raw = Raw::default();
    let mut polygons = Vec::new();
    for (name, element) in &header.elements {
        check_count(element, header.encoding, &mut reader)?;
        let place = |e| format!("element `{name}`: {e}");
        match name.as_str() {
            "vertex" => {
                let rows = Parser::<Vertex>::new().read_payload_for_element(&mut reader, element, &header);
                raw.vertices = rows.map_err(place)?.into_iter().map(|row| row.0).collect();
            }
            "face" => {
                polygons =
                    Parser::<Face>::new().read_payload_for_element(&mut reader, element, &header).map_err(place)?;
            }
            _ => {
                Parser::<Skipped>::new().read_payload_for_element(&mut reader, element, &header).map_err(place)?;
            }
        }
    }
    for (number, Face(corners)) in polygons.iter().enumerate() {
        if let Some(v) = corners.iter().find(|&&v| v as usize >= raw.vertices.len()) {
            return Err(format!("face {number}: vertex {v} does not exist; there are {}", raw.vertices.len()));
        }
        polygon::triangulate(corners, &raw.vertices, &mut raw.faces);
    }
    Ok(raw)
}

/// Refuses an element whose rows cannot fit in what is left of the file, before anything is allocated for them.
pub(crate) fn check_count<T: AsRef<[u8]>>(
    element: &ElementDef,
    encoding: Encoding,
    reader: &mut Reader<Cursor<T>>,
) -> Result<(), String> {
    let size = |scalar: &ScalarType| match scalar {
        ScalarType::Char | ScalarType::UChar => 1,
        ScalarType::Short | ScalarType::UShort => 2,
        ScalarType::Int | ScalarType::UInt | ScalarType::Float => 4,
        ScalarType::Double => 8,
    };
    let smallest_row: usize = match encoding {
        // A digit and a separator a property.
        Encoding::Ascii => 2 * element.properties.len(),
        _ => {
            let property = |p: &PropertyType| match p {
                PropertyType::Scalar(scalar) => size(scalar),
                PropertyType::List(count, _) => size(count),
            };
            element.properties.values().map(|p| property(&p.data_type)).sum()
        }
    };
    // The last row of an ASCII file may lack its line end.
    let left = reader.get_mut().fill_buf().map_err(|e| e.to_string())?.len() + 1;
    if element.count > 0 && (smallest_row == 0 || element.count > left / smallest_row) {
        let (name, count) = (&element.name, element.count);
        return Err(format!("element `{name}`: {count} rows are announced, but {} bytes are left", left - 1));
    }
    Ok(())
}

pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    write!(
        out,
        "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n\
         element face {}\nproperty list uchar int vertex_indices\nend_header\n",
        mesh.vertices().len(),
        mesh.faces().len()
    )?;
    out.extend(mesh.vertices().iter().flatten().flat_map(|c| c.to_le_bytes()));
    for face in mesh.faces() {
        out.push(3);
        out.extend(face.iter().flat_map(|v| v.to_le_bytes()));
    }
    Ok(())
}
