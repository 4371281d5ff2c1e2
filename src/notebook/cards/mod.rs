//! Cards: the displays of values from each room when they end a cell.

mod backend;
mod depth;
mod diffusion;
mod generator;
#[cfg(feature = "cuda")]
mod gpu;
mod hover_number;
mod import;
mod layers;
mod mesh;
mod model;
mod points;
mod sdf;
mod sparse;
mod tensor;
mod tensor_picture;
mod tensor_stats;
mod wavelet;

pub use layers::gradients;

use super::draw::Picture;
use super::html::{count, number};
use super::{MimeBundle, escape};

use crate::Result;

/// Named values in a card's first line. An empty name stands for a value that needs no name.
type Facts = Vec<(&'static str, String)>;

/// A fact with more characters than this may break at its spaces.
const LONGEST_UNBROKEN: usize = 60;

/// The frame of every card: a title line, then the body. It takes its text colour from the page, so it is readable in light and dark
/// themes. `title` and `facts` are text; `body` is HTML.
fn card(title: &str, facts: &[(&str, String)], body: &str) -> String {
    let facts: String = facts
        .iter()
        .map(|(name, value)| {
            let name = if name.is_empty() {
                String::new()
            } else {
                format!("<span style=\"opacity:.65\">{}</span> ", escape(name))
            };
            // A fact stays on one line, unless it is a sentence, which the card would cut off.
            let breaks = if value.chars().count() > LONGEST_UNBROKEN { "normal" } else { "nowrap" };
            format!("<span style=\"white-space:{breaks}\">{name}{}</span>", escape(value))
        })
        .collect::<Vec<_>>()
        .join("<span style=\"opacity:.4\"> · </span>");
    format!(
        "<div style=\"display:inline-block;max-width:100%;box-sizing:border-box;overflow-x:auto;border:1px solid rgba(127,127,127,.4);border-radius:6px;padding:6px 10px;font:12px/1.6 system-ui,sans-serif\">\
         <div><b style=\"font-size:13px\">{}</b> &nbsp;{facts}</div>{body}</div>",
        escape(title)
    )
}

/// The same as text: `title | name value · name value`.
fn card_text(title: &str, facts: &[(&str, String)]) -> String {
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, value)| if name.is_empty() { value.clone() } else { format!("{name} {value}") })
        .collect();
    format!("{title} | {}", facts.join(" · "))
}

/// Rows of a table that a page shows at once; the others are scrolled to.
const IN_SIGHT: usize = 24;

/// Rows that a table has at most.
const MOST: usize = 200;

/// Rows that its text has at most.
const IN_TEXT: usize = 60;

/// A small table: a header and rows of cells, as HTML and as text. Cells are text; all but the first column are numbers.
struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Rows beyond [`MOST`].
    left_out: usize,
}

impl Table {
    fn new(header: Vec<&'static str>, mut rows: impl Iterator<Item = Vec<String>>) -> Table {
        let shown = rows.by_ref().take(MOST).collect();
        Table { header, rows: shown, left_out: rows.size_hint().0 }
    }

    /// The first `most` rows, and one that says how many more there are.
    fn first(&self, most: usize) -> Vec<Vec<String>> {
        let mut rows: Vec<_> = self.rows.iter().take(most).cloned().collect();
        let more = self.rows.len() - rows.len() + self.left_out;
        if more > 0 {
            let mut last = vec![String::new(); self.header.len()];
            last[0] = format!("… {more} more");
            rows.push(last);
        }
        rows
    }

    fn html(&self) -> String {
        let cell = |tag: &str, column: usize, text: &str| {
            let align = if column == 0 { "left" } else { "right" };
            format!("<{tag} style=\"padding:0 8px;text-align:{align};background:transparent\">{}</{tag}>", escape(text))
        };
        let row = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
            format!(
                "<tr style=\"background:transparent\">{}</tr>",
                cells.enumerate().map(|(i, text)| cell(tag, i, text)).collect::<String>()
            )
        };
        let head = row("th", &mut self.header.iter().copied());
        let body: String =
            self.first(MOST).iter().map(|cells| row("td", &mut cells.iter().map(String::as_str))).collect();
        let table =
            format!("<table style=\"border-collapse:collapse;font-size:11px;margin:4px 0\">{head}{body}</table>");
        match self.rows.len() {
            0..=IN_SIGHT => table,
            _ => format!("<div style=\"max-height:420px;overflow-y:auto\">{table}</div>"),
        }
    }

    fn text(&self) -> String {
        let rows = self.first(IN_TEXT);
        let width = |i: usize| {
            rows.iter().map(|row| row[i].chars().count()).chain([self.header[i].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
            let cells: Vec<_> = cells
                .zip(&widths)
                .enumerate()
                .map(|(i, (text, &w))| if i == 0 { format!("{text:<w$}") } else { format!("{text:>w$}") })
                .collect();
            cells.join("  ")
        };
        let mut lines = vec![line(&mut self.header.iter().copied())];
        lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines.join("\n")
    }
}

/// A card with an optional table and an optional picture (beside it in HTML, and as `image/png`).
fn picture_card(
    title: &str,
    facts: &[(&str, String)],
    table: Option<&Table>,
    picture: Option<Result<Picture>>,
) -> MimeBundle {
    let mut text = card_text(title, facts);
    let mut cells = String::new();
    let mut png = None;
    if let Some(table) = table {
        text += &format!("\n{}", table.text());
        cells += &table.html();
    }
    match picture {
        Some(Ok(picture)) => {
            let bundle = picture.bundle(title.to_owned());
            cells += &format!("<div>{}</div>", bundle.to_html());
            png = bundle.png_bytes().map(|bytes| (bytes, picture.width(), picture.height()));
        }
        // A card without its picture is still useful; the error is shown in the picture's place.
        Some(Err(error)) => cells += &format!("<div>{}</div>", escape(&error.to_string())),
        None => {}
    }
    let body = if cells.is_empty() {
        cells
    } else {
        format!(
            "<div style=\"display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;margin-top:4px\">{cells}</div>"
        )
    };
    let bundle = MimeBundle::text(text).with_html(card(title, facts, &body));
    match png {
        Some((bytes, width, height)) => bundle.with_png(&bytes, width, height),
        None => bundle,
    }
}

/// A row of a table with the mean and deviation of the finite values, and the ends.
fn statistics_row(name: String, values: impl Iterator<Item = f32> + Clone) -> Vec<String> {
    let finite = values.clone().filter(|v| v.is_finite()).map(f64::from);
    let n = finite.clone().count() as f64;
    let odd = values.count() - n as usize;
    let mean = finite.clone().sum::<f64>() / n;
    let std = (finite.clone().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let (min, max) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let shown = |v: f64| if n == 0.0 { "–".into() } else { number(v) };
    vec![name, shown(min), shown(max), shown(mean), shown(std), count(odd as u64)]
}

const STATISTICS_HEADER: [&str; 6] = ["", "min", "max", "mean", "std", "NaN/Inf"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_fact_may_break_and_a_short_one_does_not() {
        let html = card("t", &[("size", "3 × 4".into()), ("device", "long words ".repeat(8))], "");
        assert!(html.contains("white-space:nowrap\"><span style=\"opacity:.65\">size"), "{html}");
        assert!(html.contains("white-space:normal\"><span style=\"opacity:.65\">device"), "{html}");
    }

    #[test]
    fn tables_align_and_escape() {
        let rows = [["<a>", "10"], ["b", "9"]].map(|cells| cells.map(String::from).to_vec());
        let table = Table::new(vec!["name", "n"], rows.into_iter());
        assert_eq!(table.text(), "name   n\n<a>   10\nb      9");
        assert!(table.html().contains("&lt;a&gt;"));
    }

    #[test]
    fn long_tables_scroll_and_say_what_they_leave_out() {
        let rows = |count: usize| (0..count).map(|n| vec![format!("row {n}"), n.to_string()]);
        let [short, long, cut] = [24, 100, 230].map(|count| Table::new(vec!["name", "n"], rows(count)));
        assert!(!short.html().contains("overflow") && !short.text().contains("more"));
        assert!(long.html().contains("overflow-y:auto") && long.html().contains("row 99"));
        assert_eq!(long.text().lines().last().map(str::trim_end), Some("… 40 more"));
        assert!(cut.html().contains("row 199") && !cut.html().contains("row 200") && cut.html().contains("… 30 more"));
        assert_eq!(cut.text().lines().last().map(str::trim_end), Some("… 170 more"));
    }

    #[test]
    fn a_statistics_row_counts_what_is_not_finite() {
        let row = statistics_row("c".into(), [1.0, f32::NAN, 3.0].into_iter());
        assert_eq!(row, ["c", "1", "3", "2", "1", "1"]);
        assert_eq!(statistics_row("c".into(), std::iter::empty())[1], "–");
    }
}
