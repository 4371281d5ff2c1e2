//! The plain kinds of content (HTML, Markdown, formulas, pictures), and `clear_output`.

use std::path::Path;

use serde_json::Value;

use super::frontend::{Frontend, Message};
use super::{Display, MimeBundle, Rich, display};
use crate::{Error, Result};

/// Removes what the running cell has shown so far: at once or, with `wait`, when its next output comes (no flicker).
pub fn clear_output(wait: bool) {
    Frontend::current().send(&Message::Clear { wait });
}

/// Brings every live display (plots and bars) to its last state now. The kernel calls this when a cell ends in any way, so that a saved
/// notebook shows the last state that the cell reached.
///
/// ```
/// use wavemesh::notebook::{LivePlot, flush};
/// let mut plot = LivePlot::new("fit");
/// (0..10).for_each(|step| plot.push("loss", 1.0 / f64::from(step + 1)));
/// flush();
/// ```
pub fn flush() {
    super::live_plot::flush();
    super::progress::flush();
}

/// Content of one of Jupyter's plain kinds, made by [`html`], [`markdown`], [`latex`], [`json`] or an image function.
#[derive(Clone, Debug)]
pub struct Content(MimeBundle);

impl Rich for Content {
    fn rich(&self) -> MimeBundle {
        self.0.clone()
    }
}

impl Content {
    /// Shows the content now, while the cell runs.
    pub fn display(&self) -> Display {
        display(self)
    }
}

/// HTML, shown unchanged: [`escape`](super::escape) text from users.
///
/// ```
/// # use wavemesh::notebook;
/// notebook::html("<b>hi</b>").display();
/// ```
pub fn html(source: impl Into<String>) -> Content {
    let source = source.into();
    Content(MimeBundle::text(text_of_html(&source)).with_html(source))
}

/// Markdown, with formulas between `$`.
pub fn markdown(source: impl Into<String>) -> Content {
    let source = source.into();
    Content(MimeBundle::text(source.clone()).with("text/markdown", source))
}

/// A LaTeX formula; `$$` is added around it if it has no delimiters.
pub fn latex(formula: impl Into<String>) -> Content {
    let formula = formula.into();
    let delimited = formula.starts_with('$') || formula.starts_with("\\begin") || formula.starts_with("\\[");
    let source = if delimited { formula.clone() } else { format!("$${formula}$$") };
    Content(MimeBundle::text(formula).with("text/latex", source))
}

/// A JSON value, shown as a tree that folds.
pub fn json(value: impl Into<Value>) -> Content {
    let value = value.into();
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    Content(MimeBundle::text(text).with("application/json", value))
}

/// A picture of `width × height` pixels from `rgb`: three bytes per pixel, rows from the top.
///
/// # Errors
/// [`Error::Shape`] if `rgb` does not have `3 · width · height` bytes.
///
/// ```
/// use wavemesh::prelude::*;
/// let red = notebook::image(2, 1, &[255, 0, 0, 255, 0, 0])?;
/// assert!(red.rich().get("image/png").is_some());
/// # Ok::<(), Error>(())
/// ```
pub fn image(width: u32, height: u32, rgb: &[u8]) -> Result<Content> {
    let png = super::png::encode_rgb(width, height, rgb)?;
    Ok(png_content(&png, width, height))
}

/// A PNG or JPEG file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is neither.
///
/// ```
/// use wavemesh::notebook::{Picture, Rich, image_file};
/// let path = std::env::temp_dir().join("wavemesh-image-example.png");
/// Picture::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255])?.save(&path)?;
/// let image = image_file(&path)?;
/// assert!(image.rich().get("image/png").is_some());
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn image_file(path: impl AsRef<Path>) -> Result<Content> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let format = |problem: String| Error::Format { path: path.to_path_buf(), format: "PNG or JPEG", problem };
    if bytes.starts_with(b"\x89PNG") {
        let info = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().map_err(|e| format(e.to_string()))?;
        let (width, height) = (info.info().width, info.info().height);
        Ok(png_content(&bytes, width, height))
    } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
        Ok(Content(
            MimeBundle::text(format!("JPEG image, {}", super::html::bytes(bytes.len() as u64)))
                .with("image/jpeg", encoded),
        ))
    } else {
        Err(format("it starts with neither's signature; convert it to PNG".into()))
    }
}

fn png_content(png: &[u8], width: u32, height: u32) -> Content {
    Content(MimeBundle::text(format!("image of {width}×{height} pixels")).with_png(png, width, height))
}

/// HTML as a terminal shows it: its text without tags.
fn text_of_html(source: &str) -> String {
    let mut text = String::new();
    let mut rest = source;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        let tag = &rest[open..];
        let raw_end = ["script", "style"]
            .iter()
            .find(|name| tag[1..].starts_with(**name))
            .and_then(|name| tag.find(&format!("</{name}")));
        let tag = &tag[raw_end.unwrap_or(0)..];
        if tag.starts_with("</p")
            || tag.starts_with("</div")
            || tag.starts_with("<br")
            || tag.starts_with("</tr")
            || tag.starts_with("</li")
        {
            text.push('\n');
        }
        rest = tag.find('>').map_or("", |close| &tag[close + 1..]);
    }
    text.push_str(rest);
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&");
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_reads_html_without_its_tags() {
        assert_eq!(text_of_html("<style>p{}</style><p>a &lt;b&gt; <i>c</i></p><script>1<2</script>d"), "a <b> c\nd");
    }

    #[test]
    fn latex_gets_delimiters_once() {
        assert_eq!(latex("x^2").rich().get("text/latex"), Some("$$x^2$$"));
        assert_eq!(latex("$x$").rich().get("text/latex"), Some("$x$"));
    }

    #[test]
    fn every_kind_carries_plain_text() {
        for content in [
            html("<b>x</b>"),
            markdown("x"),
            latex("x"),
            json(serde_json::json!({"x": 1})),
            image(1, 1, &[1, 2, 3]).unwrap(),
        ] {
            assert!(content.rich().plain().contains(['x', '×']));
        }
    }

    #[test]
    fn a_picture_of_the_wrong_size_is_refused_with_the_sizes() {
        let error = image(2, 2, &[0; 11]).unwrap_err().to_string();
        assert!(error.contains("11") && error.contains("12"), "{error}");
    }
}
