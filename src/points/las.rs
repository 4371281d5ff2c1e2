//! LAS 1.0 to 1.4, uncompressed (ASPRS): positions, intensity, class and colour.

/// Where a point format stores its class and, if it has them, its colours.
fn layout(format: u8) -> Option<(usize, Option<usize>)> {
    Some(match format {
        0 | 1 | 4 => (15, None),
        2 => (15, Some(20)),
        3 | 5 => (15, Some(28)),
        6 | 9 => (16, None),
        7 | 8 | 10 => (16, Some(30)),
        _ => return None,
    })
}

/// Positions further from the origin than this would lose millimetres in f32.
const FAR: f64 = 1e4;

/// Rows of x, y, z and the channels, and the names of the channels.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<f32>, Vec<String>), String> {
    if !bytes.starts_with(b"LASF") {
        return Err("it does not begin with LASF".into());
    }
    let header = bytes.get(..227).ok_or("its header is cut off")?;
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let f64_at = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&header[at..at + 8]);
        f64::from_le_bytes(value)
    };
    let format = header[104];
    if format & 0x80 != 0 {
        return Err("it is compressed (LAZ); decompress it with `laszip` or `pdal translate` first".into());
    }
    let (class, colors) = layout(format).ok_or(format!("point format {format} is not one of 0 to 10"))?;
    let (start, length) = (u32_at(96) as usize, usize::from(u16_at(105)));
    let mut count = u64::from(u32_at(107));
    if count == 0
        && let Some(wide) = bytes.get(247..255)
    {
        let mut value = [0; 8];
        value.copy_from_slice(wide);
        count = u64::from_le_bytes(value);
    }
    if length < class + 1 || colors.is_some_and(|at| length < at + 6) {
        return Err(format!("a point of format {format} does not fit in {length} bytes"));
    }
    let body = bytes.get(start..).ok_or("its points begin after the end of the file")?;
    if count > (body.len() / length) as u64 {
        return Err(format!("{count} points are announced, and {} bytes are left", body.len()));
    }
    let [scale, offset] = [131, 155].map(|at| [f64_at(at), f64_at(at + 8), f64_at(at + 16)]);
    let mut channels = vec!["intensity".to_string(), "classification".to_string()];
    if colors.is_some() {
        channels.extend(["red", "green", "blue"].map(String::from));
    }
    let mut rows = Vec::with_capacity(count as usize * (3 + channels.len()));
    let mut first = None;
    for point in body.chunks_exact(length).take(count as usize) {
        let short = |at: usize| f32::from(u16::from_le_bytes([point[at], point[at + 1]]));
        let place: [f64; 3] = std::array::from_fn(|a| {
            let at = 4 * a;
            f64::from(i32::from_le_bytes([point[at], point[at + 1], point[at + 2], point[at + 3]])) * scale[a]
                + offset[a]
        });
        // Metres in a map projection have seven digits before the decimal point.
        let zero = *first.get_or_insert(if place.iter().any(|v| v.abs() > FAR) { place } else { [0.0; 3] });
        rows.extend((0..3).map(|a| (place[a] - zero[a]) as f32));
        rows.extend([short(12), f32::from(if class == 15 { point[15] & 0x1f } else { point[16] })]);
        if let Some(at) = colors {
            rows.extend([short(at), short(at + 2), short(at + 4)]);
        }
    }
    Ok((rows, channels))
}
