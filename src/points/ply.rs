//! PLY point clouds, read with the crate `ply-rs-bw`: every scalar of the `vertex` element.

use std::io::{BufRead, Cursor};

use ply_rs_bw::parser::{Parser, Reader};
use ply_rs_bw::ply::{ElementDef, Encoding, Property, PropertyAccess, PropertyAccessResult, PropertyType, ScalarType};

/// The scalars of a row, in the order of the header; lists are left out.
struct Row(Vec<f32>);

impl PropertyAccess for Row {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn set_property(&mut self, _name: &str, property: Property) -> PropertyAccessResult {
        match property.to_f32_lossy() {
            Some(value) => {
                self.0.push(value);
                PropertyAccessResult::Set
            }
            None => PropertyAccessResult::Ignored,
        }
    }
}

/// Rows of x, y, z and the channels, and the names of the channels.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<f32>, Vec<String>), String> {
    let mut reader = Reader::new(Cursor::new(bytes));
    let header = Parser::<Row>::new().read_header(&mut reader).map_err(|error| error.to_string())?;
    for (name, element) in &header.elements {
        check_count(element, header.encoding, &mut reader)?;
        let rows = Parser::<Row>::new().read_payload_for_element(&mut reader, element, &header);
        let rows = rows.map_err(|error| format!("element `{name}`: {error}"))?;
        if name != "vertex" {
            continue;
        }
        let is_scalar = |kind: &PropertyType| matches!(kind, PropertyType::Scalar(_));
        let names: Vec<&str> =
            element.properties.iter().filter(|(_, p)| is_scalar(&p.data_type)).map(|(name, _)| name.as_str()).collect();
        let at =
            |axis: &str| names.iter().position(|&name| name == axis).ok_or(format!("its vertices have no `{axis}`"));
        let mut columns = vec![at("x")?, at("y")?, at("z")?];
        columns.extend((0..names.len()).filter(|&column| !["x", "y", "z"].contains(&names[column])));
        let mut values = Vec::with_capacity(rows.len() * columns.len());
        for (number, Row(row)) in rows.iter().enumerate() {
            if row.len() != names.len() {
                return Err(format!("vertex {number} has {} numbers of {}", row.len(), names.len()));
            }
            values.extend(columns.iter().map(|&column| row[column]));
        }
        let channels = columns[3..].iter().map(|&column| names[column].to_string()).collect();
        return Ok((values, channels));
    }
    Err("it has no vertices".into())
}

/// Rejects an element whose rows cannot fit in the rest of the file, before anything is allocated for them.
fn check_count<T: AsRef<[u8]>>(
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
        // Each property takes at least a digit and a separator.
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
