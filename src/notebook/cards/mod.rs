//! Cards: what a value of each room shows of itself when it ends a cell.

mod backend;
mod diffusion;
mod generator;
mod import;
mod layers;
mod mesh;
mod model;
mod points;
mod sdf;
mod sparse;
mod tensor;
mod tensor_stats;
mod wavelet;

pub use layers::gradients;

use super::draw::Picture;
use super::html::{count, number};
use super::{MimeBundle, escape};

use crate::Result;

/// Named values of a card's first line; an empty name stands for a value that speaks for itself.
type Facts = Vec<(&'static str, String)>;

/// The frame every card shares: a title line, then its body. It takes its text colour from the page, so it reads well in
/// light and dark themes. `title` and `facts` are text; `body` is HTML.
fn card(title: &str, facts: &[(&str, String)], body: &str) -> String {
    let facts: String = facts
        .iter()
        .map(|(name, value)| {
            let name = if name.is_empty() {
                String::new()
            } else {
                format!("<span style=\"opacity:.65\">{}</span> ", escape(name))
            };
            format!("<span style=\"white-space:nowrap\">{name}{}</span>", escape(value))
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

/// A small table: a header and rows of cells, as HTML and as text. Cells are text; all but the first column are numbers.
struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
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
        let body: String = self.rows.iter().map(|cells| row("td", &mut cells.iter().map(String::as_str))).collect();
        format!("<table style=\"border-collapse:collapse;font-size:11px;margin:4px 0\">{head}{body}</table>")
    }

    fn text(&self) -> String {
        let width = |i: usize| {
            self.rows
                .iter()
                .map(|row| row[i].chars().count())
                .chain([self.header[i].chars().count()])
                .max()
                .unwrap_or(0)
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
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
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
        // A card without its picture is still a card; what went wrong is said in its place.
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

/// Mean and deviation of the finite values, with the ends: a row of a table.
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
    fn tables_align_and_escape() {
        let table = Table {
            header: vec!["name", "n"],
            rows: vec![vec!["<a>".into(), "10".into()], vec!["b".into(), "9".into()]],
        };
        assert_eq!(table.text(), "name   n\n<a>   10\nb      9");
        assert!(table.html().contains("&lt;a&gt;"));
    }

    #[test]
    fn a_statistics_row_counts_what_is_not_finite() {
        let row = statistics_row("c".into(), [1.0, f32::NAN, 3.0].into_iter());
        assert_eq!(row, ["c", "1", "3", "2", "1", "1"]);
        assert_eq!(statistics_row("c".into(), std::iter::empty())[1], "–");
    }
}
