//! Several outputs side by side.

use plotters::style::text_anchor::HPos;

use super::draw::{Picture, Theme, contact_sheet, figure, write_text};
use super::{MimeBundle, Rich, escape};
use crate::{Error, Result};

/// Outputs in rows and columns; made by [`hstack`] or [`grid`].
#[derive(Clone, Debug)]
pub struct Layout(MimeBundle);

impl Rich for Layout {
    fn rich(&self) -> MimeBundle {
        self.0.clone()
    }
}

/// Shows values side by side; they wrap on a narrow page.
///
/// ```
/// use wavemesh::notebook::{Rich, hstack, html, markdown};
/// let both = hstack(&[&html("<b>left</b>"), &markdown("right")]);
/// assert_eq!(both.rich().plain(), "left\nright");
/// ```
pub fn hstack(values: &[&dyn Rich]) -> Layout {
    arrange(values, values.len().max(1), "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start".into())
}

/// Shows values in rows of `columns`, as wide as the page.
///
/// # Errors
/// No columns.
///
/// ```
/// use wavemesh::prelude::*;
/// let curve = plot([0, 1], [0.0, 1.0]).size(200, 150);
/// assert!(notebook::grid(&[&curve, &curve, &curve], 2)?.rich().get("text/html").is_some());
/// # Ok::<(), Error>(())
/// ```
pub fn grid(values: &[&dyn Rich], columns: usize) -> Result<Layout> {
    if columns == 0 {
        return Err(Error::Argument { op: "grid", name: "columns", got: "0".into(), expected: "at least 1".into() });
    }
    let style = format!("display:grid;grid-template-columns:repeat({columns},minmax(0,max-content));gap:12px");
    Ok(arrange(values, columns, style))
}

/// Adds a line of text above any value that can be displayed.
pub trait Titled: Rich {
    /// The value with a line above it, to tell several values side by side apart.
    ///
    /// ```
    /// use wavemesh::notebook::{Rich, Titled, hstack, html};
    /// let both = hstack(&[&html("1").titled("before"), &html("2").titled("after")]);
    /// assert_eq!(both.rich().plain(), "before: 1\nafter: 2");
    /// ```
    fn titled(&self, title: impl Into<String>) -> MimeBundle
    where
        Self: Sized,
    {
        titled(&self.rich(), &title.into())
    }
}

impl<T: Rich> Titled for T {}

/// The bundle with a line above it, in each of its representations.
fn titled(bundle: &MimeBundle, title: &str) -> MimeBundle {
    let html = format!(
        "<div style=\"display:inline-block;max-width:100%\"><div style=\"font:600 13px/1.8 system-ui,sans-serif\">{}</div>{}</div>",
        escape(title),
        bundle.to_html()
    );
    let with_html = MimeBundle::text(format!("{title}: {}", bundle.plain())).with_html(html);
    let above = |file: Vec<u8>| {
        let picture = Picture::from_png(&file)?;
        contact_sheet(&[line(title, picture.width())?, picture], 1)
    };
    match bundle.png_bytes().map(above) {
        Some(Ok(sheet)) => {
            sheet.png().map_or(with_html.clone(), |png| with_html.with_png(&png, sheet.width(), sheet.height()))
        }
        _ => with_html,
    }
}

/// A title as a picture, dark on white.
fn line(title: &str, width: u32) -> Result<Picture> {
    let drawn = figure((width, 26), |root| {
        Ok(write_text(root, title, (width as i32 / 2, 14), HPos::Center, 16, Theme::Light)?)
    })?;
    drawn.into_picture()
}

fn arrange(values: &[&dyn Rich], columns: usize, style: String) -> Layout {
    let bundles: Vec<MimeBundle> =
        values.iter().map(|value| value.rich()).filter(|bundle| !bundle.is_empty()).collect();
    if bundles.is_empty() {
        return Layout(MimeBundle::nothing());
    }
    let text: Vec<_> = bundles.iter().map(MimeBundle::plain).collect();
    let cells: String = bundles.iter().map(|bundle| format!("<div>{}</div>", bundle.to_html())).collect();
    let mut bundle = MimeBundle::text(text.join("\n")).with_html(format!("<div style=\"{style}\">{cells}</div>"));
    // Pictures side by side are also joined to one picture, for places that show no HTML.
    let pictures: Option<Vec<Picture>> =
        bundles.iter().map(|bundle| Picture::from_png(&bundle.png_bytes()?).ok()).collect();
    if let Some(sheet) = pictures.and_then(|pictures| contact_sheet(&pictures, columns).ok())
        && let Ok(png) = sheet.png()
    {
        bundle = bundle.with_png(&png, sheet.width(), sheet.height());
    }
    Layout(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::html;

    #[test]
    fn pictures_side_by_side_are_one_picture_too() {
        let of = |value: u8| Picture::from_rgb(2, 1, vec![value; 6]).unwrap();
        let bundle = grid(&[&of(10), &of(200), &of(90)], 2).unwrap().rich();
        let sheet = Picture::from_png(&bundle.png_bytes().unwrap()).unwrap();
        assert_eq!(
            (sheet.width(), sheet.height(), sheet.rgb()[0], sheet.rgb()[6], sheet.rgb()[12]),
            (4, 2, 10, 200, 90)
        );
        assert_eq!(bundle.to_html().matches("<img").count(), 3);
    }

    #[test]
    fn a_title_stands_above_text_page_and_picture() {
        let red = Picture::from_rgb(60, 10, [200, 0, 0].repeat(600)).unwrap();
        let bundle = red.titled("before <1>");
        assert!(bundle.plain().starts_with("before <1>: picture"));
        assert!(bundle.to_html().contains("before &lt;1&gt;</div><img"));
        let sheet = Picture::from_png(&bundle.png_bytes().unwrap()).unwrap();
        assert_eq!((sheet.width(), sheet.height(), &sheet.rgb()[3 * 60 * 30..][..3]), (60, 36, [200, 0, 0].as_slice()));
        assert!(sheet.rgb()[..3 * 60 * 26].chunks(3).any(|pixel| pixel[0] < 128), "the title is written");
    }

    #[test]
    fn html_and_nothing_have_no_picture() {
        assert!(hstack(&[&html("a"), &html("b")]).rich().get("image/png").is_none());
        assert!(hstack(&[]).rich().is_empty());
        assert!(grid(&[], 0).is_err());
    }
}
