//! The card of a candle tensor, like lovely-tensors and treescope: one line of facts, histogram, heatmap, small values.

use candle_core::{Device, DeviceLocation, Tensor};
use serde_json::json;

use super::hover_number::write_hover_number;
use super::tensor_picture::{Heat, Still};
use super::tensor_stats::{Elements, TensorStats};
use super::{card, card_text};
use crate::Result;
use crate::notebook::colormap::{Colormap, INF_COLOR, NAN_COLOR, shown_range};
use crate::notebook::html::{bytes, count, number};
use crate::notebook::{MimeBundle, Rich, escape};

/// Tensors of at most this many elements show their values as text.
const SHOW_VALUES: usize = 120;
/// The heatmap shows at most this many elements.
const CELLS: usize = 4096;
const PANELS: usize = 4;
/// The heatmap of all panels is about this wide on the page, in pixels.
const WIDTH: usize = 520;

impl Rich for Tensor {
    fn rich(&self) -> MimeBundle {
        match tensor_card(self) {
            Ok(bundle) => bundle,
            // If elements cannot be read (packed types, a lost device), the card shows the facts without the values.
            Err(error) => {
                let facts = facts(self);
                let body = format!("<div>{}</div>", escape(&error.to_string()));
                MimeBundle::text(format!("{}\n{error}", card_text(&title(self), &facts))).with_html(card(
                    &title(self),
                    &facts,
                    &body,
                ))
            }
        }
    }
}

impl Rich for candle_core::Var {
    fn rich(&self) -> MimeBundle {
        self.as_tensor().rich()
    }
}

fn title(tensor: &Tensor) -> String {
    let dims: Vec<_> = tensor.dims().iter().map(usize::to_string).collect();
    format!("Tensor[{}]", dims.join(", "))
}

/// A device as `WAVEMESH_DEVICE` names it.
pub(super) fn device_name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

fn facts(tensor: &Tensor) -> Vec<(&'static str, String)> {
    let device = device_name(tensor.device());
    let layout =
        if tensor.is_contiguous() { "contiguous".to_owned() } else { format!("strides {:?}", tensor.stride()) };
    let size = bytes((tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64);
    vec![("", tensor.dtype().as_str().to_owned()), ("", device), ("", layout), ("", size)]
}

fn stat_facts(stats: &TensorStats) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("min", number(stats.min)),
        ("max", number(stats.max)),
        ("mean", number(stats.mean)),
        ("std", number(stats.std)),
    ];
    for (name, n) in [("NaN", stats.nan), ("Inf", stats.infinite), ("zeros", stats.zero)] {
        if n > 0 {
            facts.push((name, count(n)));
        }
    }
    facts
}

fn tensor_card(tensor: &Tensor) -> Result<MimeBundle> {
    let elements = Elements::of(tensor)?;
    let stats = elements.stats()?;
    let mut facts = facts(tensor);
    let n = tensor.elem_count();
    if n > 0 {
        facts.extend(stat_facts(&stats));
    }
    let mut text = card_text(&title(tensor), &facts);
    let (mut body, mut still) = (String::new(), None);
    if n > 1 && stats.finite > 0 {
        text += &format!("\n{} {} {}", number(stats.min), blocks(&stats.histogram), number(stats.max));
        body += &format!(
            "<div style=\"display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;margin-top:4px\">{}",
            histogram_svg(&stats)
        );
        let (html, picture) = heatmap(tensor, &elements, &stats)?;
        body += &html;
        body += "</div>";
        still = Some(picture);
    }
    if n > 0 && n <= SHOW_VALUES {
        let values = values_text(tensor)?;
        text += &format!("\n{values}");
        body += &format!(
            "<pre style=\"margin:4px 0 0;font-size:11px;background:transparent;color:inherit\">{}</pre>",
            escape(&values)
        );
    }
    let bundle = MimeBundle::text(text).with_html(card(&title(tensor), &facts, &body));
    Ok(match still {
        Some(Still { file, width, height }) => bundle.with_png(&file, width, height),
        None => bundle,
    })
}

/// The values, nested in brackets as candle prints them.
fn values_text(tensor: &Tensor) -> Result<String> {
    let tensor = tensor.detach().to_device(&Device::Cpu)?;
    let printed = tensor.to_string();
    Ok(printed.rsplit_once("\nTensor[").map_or(printed.as_str(), |(values, _)| values).to_owned())
}

/// A histogram in one line of text: `▁▂▅█▅▂▁`.
fn blocks(histogram: &[u64]) -> String {
    let levels = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let pairs: Vec<u64> = histogram.chunks(2).map(|pair| pair.iter().sum()).collect();
    let most = pairs.iter().copied().max().unwrap_or(0).max(1) as f64;
    pairs
        .iter()
        .map(|&n| if n == 0 { ' ' } else { levels[((n as f64 / most * 7.0).round() as usize).min(7)] })
        .collect()
}

fn histogram_svg(stats: &TensorStats) -> String {
    let (width, height) = (stats.histogram.len() * 4, 56);
    let most = stats.histogram.iter().copied().max().unwrap_or(0).max(1) as f64;
    let bars: String = stats
        .histogram
        .iter()
        .enumerate()
        .filter(|(_, n)| **n > 0)
        .map(|(i, &n)| {
            let h = (n as f64 / most * height as f64).max(1.0);
            format!("M{} {height}v-{h:.1}h3.4v{h:.1}z", i * 4)
        })
        .collect();
    let zero = (stats.min < 0.0 && stats.max > 0.0).then(|| -stats.min / (stats.max - stats.min) * width as f64);
    let zero = zero.map_or_else(String::new, |x| {
        format!(
            "<path d=\"M{x:.1} 0v{height}\" stroke=\"currentColor\" stroke-opacity=\".6\" stroke-dasharray=\"2 2\"/>"
        )
    });
    format!(
        "<svg width=\"{width}\" height=\"{}\" role=\"img\" aria-label=\"histogram\" style=\"overflow:visible\"><path d=\"{bars}\" fill=\"#4a90c4\"/>{zero}\
         <path d=\"M0 {height}.5h{width}\" stroke=\"currentColor\" stroke-opacity=\".5\"/>\
         <g fill=\"currentColor\" font-size=\"10\" font-family=\"system-ui,sans-serif\"><text y=\"{}\">{}</text><text x=\"{width}\" y=\"{}\" text-anchor=\"end\">{}</text></g></svg>",
        height + 14,
        height + 12,
        number(stats.min),
        height + 12,
        number(stats.max),
    )
}

/// The elements that the heatmap shows: rectangles over two axes, with the other axes at fixed positions.
struct Panels {
    /// The index of the axis that runs down, and of the one that runs across; `None` if the tensor has fewer axes.
    down: Option<usize>,
    across: usize,
    /// For each panel, its index on every axis (0 on `down` and `across`).
    held: Vec<Vec<usize>>,
    /// The positions shown along each.
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Panels {
    /// The last two axes longer than one make the picture; the longest axis before them makes the panels; the others stay at their middle.
    fn choose(dims: &[usize]) -> Self {
        let long: Vec<usize> = (0..dims.len()).filter(|&axis| dims[axis] > 1).collect();
        let across = long.last().copied().unwrap_or(0);
        let down = (long.len() >= 2).then(|| long[long.len() - 2]);
        let before = &long[..long.len().saturating_sub(2)];
        let over = before.iter().copied().max_by_key(|&axis| (dims[axis], std::cmp::Reverse(axis)));
        let middle: Vec<usize> =
            (0..dims.len()).map(|axis| if Some(axis) == down || axis == across { 0 } else { dims[axis] / 2 }).collect();
        let held: Vec<_> = match over {
            None => vec![middle],
            Some(axis) => evenly(dims[axis], PANELS)
                .into_iter()
                .map(|i| middle.iter().enumerate().map(|(a, &m)| if a == axis { i } else { m }).collect())
                .collect(),
        };
        let cells = CELLS / held.len();
        let (rows, columns) = match down {
            None => (vec![0], evenly(dims[across], 256)),
            Some(axis) => {
                let side = (cells as f64).sqrt() as usize;
                let (r, c) = (dims[axis], dims[across]);
                // A short side is shown completely and leaves its room to the long one; two long sides roughly keep their proportion.
                let rows = if c < side {
                    cells / c
                } else if r < side {
                    r
                } else {
                    ((cells as f64 * r as f64 / c as f64).sqrt() as usize).clamp(side / 4, 4 * side)
                };
                let columns = if r <= rows && c < side { c } else { cells / rows.min(r) };
                (evenly(r, rows.min(256)), evenly(c, columns.min(256)))
            }
        };
        Self { down, across, held, rows, columns }
    }

    /// The values of a panel, row by row.
    fn values(&self, panel: usize, elements: &Elements) -> Result<Vec<f64>> {
        let first = elements.place(&self.held[panel]);
        let (down, across) = (self.down.map_or(0, |axis| elements.stride(axis)), elements.stride(self.across));
        let row = |row: &usize| {
            let start = first + row * down;
            self.columns.iter().map(move |column| start + column * across)
        };
        elements.pick(self.rows.iter().flat_map(row))
    }

    /// `[0, 3, :, :]`
    fn title(&self, panel: usize) -> String {
        let parts: Vec<_> = self.held[panel]
            .iter()
            .enumerate()
            .map(|(axis, i)| if Some(axis) == self.down || axis == self.across { ":".into() } else { i.to_string() })
            .collect();
        format!("[{}]", parts.join(", "))
    }
}

/// At most `most` positions of `0..n`, evenly spread, including the first and the last.
fn evenly(n: usize, most: usize) -> Vec<usize> {
    if n <= most { (0..n).collect() } else { (0..most).map(|i| i * (n - 1) / (most - 1).max(1)).collect() }
}

/// Pictures of the chosen slices: in HTML, where pointing at an element shows its index and value, and as a plain picture beside the
/// histogram.
fn heatmap(tensor: &Tensor, elements: &Elements, stats: &TensorStats) -> Result<(String, Still)> {
    let panels = Panels::choose(tensor.dims());
    let (rows, columns) = (panels.rows.len(), panels.columns.len());
    let (low, high) = shown_range(stats.min, stats.max);
    let map = Colormap::for_range(stats.min, stats.max);
    let gap = 8;
    let scale = ((WIDTH / panels.held.len() - gap) as f64 / columns as f64).min(180.0 / rows as f64).clamp(1.0, 16.0);
    let (width, height) = ((columns as f64 * scale) as u32, (rows as f64 * scale).max(10.0) as u32);
    let id = crate::notebook::rich::new_id();
    let mut html = format!("<div id=\"{id}\"><div style=\"display:flex;flex-wrap:wrap;gap:{gap}px\">");
    let values = (0..panels.held.len()).map(|panel| panels.values(panel, elements)).collect::<Result<Vec<_>>>()?;
    let heat = Heat::new(&values, [columns, rows], (low, high), map);
    let mut shown = String::new();
    for (panel, values) in values.iter().enumerate() {
        html += &format!(
            "<figure style=\"margin:0\"><img width=\"{width}\" height=\"{height}\" style=\"image-rendering:pixelated;display:block\" alt=\"heatmap\" src=\"data:image/png;base64,{}\">\
             <figcaption style=\"font-size:10px;opacity:.75\">{}</figcaption></figure>",
            heat.png(panel)?,
            panels.title(panel)
        );
        for (i, &value) in values.iter().enumerate() {
            shown.push(if i == 0 { '[' } else { ',' });
            write_hover_number(&mut shown, value);
        }
        shown.push_str(if panel + 1 == panels.held.len() { "]" } else { "]," });
    }
    let sampled = panels.down.is_some_and(|axis| rows < tensor.dims()[axis]) || columns < tensor.dims()[panels.across];
    let mut legend = format!("{} to {}", number(low), number(high));
    if sampled {
        legend += ", evenly sampled";
    }
    let mark = |name: &str, color: [u8; 3]| {
        format!(" <span style=\"background:rgb({},{},{});padding:0 5px\"></span> {name}", color[0], color[1], color[2])
    };
    let marks = [(stats.nan, mark("NaN", NAN_COLOR)), (stats.infinite, mark("Inf", INF_COLOR))];
    let marks: String = marks.into_iter().filter(|(n, _)| *n > 0).map(|(_, mark)| mark).collect();
    let held: Vec<_> = panels
        .held
        .iter()
        .map(|index| {
            index
                .iter()
                .enumerate()
                .map(|(axis, i)| if Some(axis) == panels.down || axis == panels.across { -1 } else { *i as i64 })
                .collect::<Vec<_>>()
        })
        .collect();
    let data = json!({ "held": held, "down": panels.down, "across": panels.across, "rows": panels.rows, "columns": panels.columns });
    html += &format!(
        "</div><div style=\"font-size:10px;opacity:.75\">{} {legend}{marks} <b data-read></b></div></div>\
         <script>(()=>{{const d={data},v=[{shown}];const go=n=>{{const root=document.getElementById('{id}');\
         if(!root){{if(n)setTimeout(go,50,n-1);return}}{}}};go(100)}})()</script>",
        map.name(),
        include_str!("heatmap_hover.js").trim()
    );
    Ok((html, heat.still(&stats.histogram, [width, height])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::Picture;
    use crate::notebook::cards::tensor_picture::MARGIN;
    use crate::notebook::cards::tensor_stats::BINS;
    use candle_core::{DType, Device};

    #[test]
    fn the_line_tells_shape_type_device_layout_size_and_statistics() {
        let tensor = Tensor::new(&[[1f32, f32::NAN, 3.0], [0.0, -1.5, f32::INFINITY]], &Device::Cpu).unwrap();
        let text = tensor.rich().plain().to_owned();
        let line = text.lines().next().unwrap();
        assert_eq!(
            line,
            "Tensor[2, 3] | f32 · cpu · contiguous · 24 B · min -1.500 · max 3 · mean 0.6250 · std 1.635 · NaN 1 · Inf 1 · zeros 1"
        );
        assert!(text.contains("[[ 1.0000,     NaN,  3.0000],"), "{text}");
    }

    #[test]
    fn the_picture_marks_nan_and_infinity_and_keeps_rows_and_columns() {
        let tensor = Tensor::new(&[[0f32, 1.0, f32::NAN], [f32::INFINITY, 1.0, 0.5]], &Device::Cpu).unwrap();
        let picture = Picture::from_png(&tensor.rich().png_bytes().unwrap()).unwrap();
        let (cell, left) = (16, (BINS * 4 + 3 * MARGIN) as u32);
        let pixel = |row: u32, column: u32| {
            let (x, y) = (left + cell * column + cell / 2, MARGIN as u32 + cell * row + cell / 2);
            let at = ((y * picture.width() + x) * 3) as usize;
            [picture.rgb()[at], picture.rgb()[at + 1], picture.rgb()[at + 2]]
        };
        assert_eq!((pixel(0, 2), pixel(1, 0)), (NAN_COLOR, INF_COLOR));
        assert_eq!((pixel(0, 0), pixel(0, 1)), (Colormap::Viridis.color(0.0), Colormap::Viridis.color(1.0)));
    }

    #[test]
    fn higher_ranks_show_panels_over_the_longest_leading_axis_and_say_which() {
        let panels = Panels::choose(&[1, 16, 3, 64, 64]);
        assert_eq!((panels.down, panels.across, panels.held.len()), (Some(3), 4, 4));
        assert_eq!([panels.title(0), panels.title(3)], ["[0, 0, 1, :, :]", "[0, 15, 1, :, :]"]);
        assert_eq!((panels.rows.len(), *panels.rows.last().unwrap()), (32, 63));
    }

    #[test]
    fn large_matrices_keep_their_proportion_and_thin_ones_their_short_side() {
        let shown = |dims: &[usize]| {
            let panels = Panels::choose(dims);
            (panels.rows.len(), panels.columns.len())
        };
        assert_eq!(shown(&[64, 96]), (52, 78));
        assert_eq!(shown(&[1000, 500]), (90, 45));
        assert_eq!((shown(&[3, 5000]), shown(&[5000, 3]), shown(&[20, 30])), ((3, 256), (256, 3), (20, 30)));
        assert_eq!(shown(&[100, 1_000_000]), (16, 256));
    }

    #[test]
    fn every_rank_and_type_has_a_card() {
        for dims in [vec![], vec![1], vec![7], vec![3, 5], vec![2, 3, 4], vec![2, 1, 3, 4, 5], vec![0, 4], vec![300, 2]]
        {
            for dtype in [DType::U8, DType::I64, DType::F16, DType::F32] {
                let bundle = Tensor::ones(dims.as_slice(), dtype, &Device::Cpu).unwrap().rich();
                assert!(
                    bundle.plain().contains(dtype.as_str()) && bundle.get("text/html").is_some(),
                    "{dims:?} {dtype:?}"
                );
            }
        }
    }
}
