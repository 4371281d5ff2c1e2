//! PLY point clouds, by the crate `ply-rs-bw`: every scalar of the `vertex` element.

use std::io::Cursor;

use ply_rs_bw::parser::{Parser, Reader};
use ply_rs_bw::ply::{Property, PropertyAccess, PropertyAccessResult, PropertyType};

use crate::mesh::check_ply_count;

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

/// Rows of x, y, z and the channels, and the names of these.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<f32>, Vec<String>), String> {
    let mut reader = Reader::new(Cursor::new(bytes));
    let header = Parser::<Row>::new().read_header(&mut reader).map_err(|error| error.to_string())?;
    for (name, element) in &header.elements {
        check_ply_count(element, header.encoding, &mut reader)?;
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
