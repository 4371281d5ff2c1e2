//! 3D plots as SVG: the visible polygons from far to near, with text as text.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::canvas::OUTLINE;
use super::{Canvas, Polygon, register_font};
use crate::Result;

/// An SVG document of the visible polygons, followed by what `write` adds (text, colour bar).
pub(crate) fn svg_document(
    (width, height): (u32, u32),
    paper: [u8; 3],
    polygons: &[Polygon],
    write: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Result<()>,
) -> Result<String> {
    register_font();
    let size = [width, height].map(|n| n as usize);
    let depths = Canvas::new(size[0], size[1], paper).depths(polygons);
    let mut visible: Vec<&Polygon> = polygons.iter().filter(|polygon| is_visible(&depths, size, polygon)).collect();
    visible.sort_by(|a, b| depth(a).total_cmp(&depth(b)));

    let mut document = String::new();
    {
        let root = SVGBackend::with_string(&mut document, (width, height)).into_drawing_area();
        write(&root)?;
        let _ = root.present();
    }
    let [r, g, b] = paper;
    let mut shapes = format!("<rect width=\"{width}\" height=\"{height}\" fill=\"rgb({r},{g},{b})\"/>\n");
    for polygon in visible {
        let points: Vec<_> = polygon.points().iter().map(|[x, y, _]| format!("{x:.1},{y:.1}")).collect();
        let [r, g, b] = polygon.flat_color();
        // A hairline in the face's own colour closes the gaps that antialiasing leaves between neighbours.
        let stroke = if polygon.is_outlined() {
            polygon.flat_color().map(|c| (f32::from(c) * OUTLINE) as u8)
        } else {
            [r, g, b]
        };
        let opacity = if polygon.alpha() < 255 {
            format!(" fill-opacity=\"{:.2}\"", f32::from(polygon.alpha()) / 255.0)
        } else {
            String::new()
        };
        let width = if polygon.alpha() < 255 { 0.0 } else { 0.5 };
        shapes += &format!(
            "<polygon points=\"{}\" fill=\"#{r:02x}{g:02x}{b:02x}\" stroke=\"#{:02x}{:02x}{:02x}\" stroke-width=\"{width}\"{opacity}/>\n",
            points.join(" "),
            stroke[0],
            stroke[1],
            stroke[2]
        );
    }
    // The shapes come before the text.
    let body = document.find('>').map_or(0, |close| close + 1);
    document.insert_str(body, &format!("\n{shapes}"));
    Ok(document)
}

fn depth(polygon: &Polygon) -> f32 {
    let points = polygon.points();
    points.iter().map(|p| p[2]).sum::<f32>() / points.len() as f32
}

/// Whether at least one of some points on the polygon is the nearest by the depths of a picture's pixels.
fn is_visible(depths: &[f32], [width, height]: [usize; 2], polygon: &Polygon) -> bool {
    if polygon.alpha() < 255 {
        return true;
    }
    let points = polygon.points();
    let n = points.len() as f32;
    let middle: [f32; 3] = std::array::from_fn(|i| points.iter().map(|p| p[i]).sum::<f32>() / n);
    let inner = points.iter().map(|p| std::array::from_fn(|i| 0.2 * middle[i] + 0.8 * p[i]));
    std::iter::once(middle).chain(inner).any(|[x, y, depth]: [f32; 3]| {
        if x < 0.0 || y < 0.0 {
            return false;
        }
        let (x, y) = (x as usize, y as usize);
        let nearest = if x < width && y < height { depths[y * width + x] } else { f32::NEG_INFINITY };
        depth >= nearest - depth.abs() * 2e-3
    })
}
