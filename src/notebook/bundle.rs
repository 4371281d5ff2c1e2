//! The MIME bundle: one output in several representations; the frontend shows the richest one that it supports.

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// One output in several representations, keyed by MIME type (Jupyter's `data` and `metadata`).
///
/// A bundle always has `text/plain`, for terminals, logs and screen readers.
///
/// ```
/// use wavemesh::notebook::MimeBundle;
/// let bundle = MimeBundle::text("x = 1").with_html("<b>x</b> = 1");
/// assert_eq!(bundle.get("text/html"), Some("<b>x</b> = 1"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MimeBundle {
    data: Map<String, Value>,
    metadata: Map<String, Value>,
}

impl MimeBundle {
    /// A bundle with plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::default().with("text/plain", text.into())
    }

    /// A bundle that shows nothing, as `()` does at the end of a cell.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds or replaces the representation of any MIME type. `value` is a string, except for JSON types.
    pub fn with(mut self, mime: &str, value: impl Into<Value>) -> Self {
        self.data.insert(mime.to_owned(), value.into());
        self
    }

    /// Adds `text/html`. The caller must have escaped text from users ([`escape`](super::escape)).
    pub fn with_html(self, html: impl Into<String>) -> Self {
        self.with("text/html", html.into())
    }

    /// Adds `image/svg+xml`.
    pub fn with_svg(self, svg: impl Into<String>) -> Self {
        self.with("image/svg+xml", svg.into())
    }

    /// Adds `image/png` from an encoded PNG file of `width × height` pixels on screen.
    pub fn with_png(mut self, png: &[u8], width: u32, height: u32) -> Self {
        self.metadata.insert("image/png".into(), json!({ "width": width, "height": height }));
        let encoded = base64::engine::general_purpose::STANDARD.encode(png);
        self.with("image/png", encoded)
    }

    /// The representation with this MIME type, if it exists and is a string (images are base64).
    pub fn get(&self, mime: &str) -> Option<&str> {
        self.data.get(mime)?.as_str()
    }

    /// The plain text; empty if the bundle shows nothing.
    pub fn plain(&self) -> &str {
        self.get("text/plain").unwrap_or_default()
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// All representations: (MIME type, value).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.data.iter().map(|(mime, value)| (mime.as_str(), value))
    }

    /// The decoded PNG file, if the bundle has one.
    pub fn png_bytes(&self) -> Option<Vec<u8>> {
        base64::engine::general_purpose::STANDARD.decode(self.get("image/png")?).ok()
    }

    /// The bundle as HTML to be used inside other HTML (layouts, composed outputs): its HTML, otherwise its picture, otherwise its text.
    pub fn to_html(&self) -> String {
        if let Some(html) = self.get("text/html") {
            html.to_owned()
        } else if let Some(png) = self.get("image/png") {
            let size = |key| self.metadata.get("image/png").and_then(|m| m.get(key)).and_then(Value::as_u64);
            let width = size("width").map(|w| format!(" width=\"{w}\"")).unwrap_or_default();
            let alt = super::escape(self.plain());
            format!("<img src=\"data:image/png;base64,{png}\"{width} style=\"max-width:100%\" alt=\"{alt}\">")
        } else if let Some(svg) = self.get("image/svg+xml") {
            svg.to_owned()
        } else {
            format!("<pre style=\"margin:0\">{}</pre>", super::escape(self.plain()))
        }
    }

    /// Jupyter's message content: `{"data": …, "metadata": …}`.
    pub(crate) fn content(&self) -> Map<String, Value> {
        let mut content = Map::new();
        content.insert("data".into(), Value::Object(self.data.clone()));
        content.insert("metadata".into(), Value::Object(self.metadata.clone()));
        content
    }
}
