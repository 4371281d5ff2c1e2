//! Interactive 3D views. Each is one self-contained HTML output, which needs no network and no installation.
//!
//! The view is plain WebGL2 (`viewer.js` and the files beside it). Its context is created when the output becomes visible and released when
//! it leaves the screen, because browsers allow about sixteen contexts per page. Where scripts do not run (GitHub, untrusted notebooks),
//! the static picture in the same output stays.

mod mesh_viewer;
mod payload;
mod point_viewer;
mod voxel_viewer;

pub use mesh_viewer::MeshViewer;
pub use point_viewer::PointViewer;
pub use voxel_viewer::VoxelViewer;

use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::draw::Picture;
use super::{Colormap, MimeBundle, escape};
use crate::{Error, Result};

/// Checks that a sequence can play at this rate.
fn check_rate(op: &'static str, rate: f32) -> Result<()> {
    if rate.is_finite() && rate > 0.0 { Ok(()) } else { Err(Error::argument(op, "frames_per_second", rate, "above 0")) }
}

/// The data for the browser.
struct Content {
    meta: Value,
    /// The compressed payload.
    data: Vec<u8>,
    /// The text in place of the view.
    text: String,
}

/// Builds a viewer's output from the data for the browser and the picture that replaces it; both are made at the same time.
fn viewer_bundle(
    still: impl FnOnce() -> Result<Picture> + Send,
    content: impl FnOnce() -> Result<Content> + Send,
) -> Result<MimeBundle> {
    let still = || {
        let picture = still()?;
        Ok::<_, Error>((picture.png()?, picture.width(), picture.height()))
    };
    let (still, content) = rayon::join(still, content);
    let ((png, width, height), Content { meta, data, text }) = (still?, content?);
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut ramps = Map::new();
    for map in Colormap::ALL {
        let stops: String = map.stops().iter().flatten().map(|byte| format!("{byte:02x}")).collect();
        ramps.insert(map.name().into(), stops.into());
    }
    let id = super::rich::new_id();
    let title = meta["title"].as_str().unwrap_or_default();
    let heading = if title.is_empty() {
        String::new()
    } else {
        format!("<div style=\"font-weight:600;margin-bottom:4px\">{}</div>", escape(title))
    };
    let html = format!(
        "<div data-wavemesh=\"{id}\" data-lm-suppress-shortcuts=\"true\" style=\"max-width:{width}px;font:12px/1.6 system-ui,sans-serif\">{heading}\
         <div data-stage><img src=\"data:image/png;base64,{png}\" width=\"{width}\" style=\"max-width:100%\" alt=\"{alt}\"></div></div>\
         <script>(()=>{{{script}\
         const go=n=>{{const roots=document.querySelectorAll('[data-wavemesh=\"{id}\"]');\
         if(roots.length)roots.forEach(r=>wavemeshViewer(r,{meta},\"{packed}\",{ramps}));else if(n)setTimeout(go,50,n-1)}};go(200)}})()</script>",
        png = base64(&png),
        alt = escape(&text),
        script = *SCRIPT,
        meta = in_script(&meta),
        packed = base64(&data),
        ramps = Value::Object(ramps),
    );
    Ok(MimeBundle::text(text).with_html(html).with_png(&png, width, height))
}

/// The script of the view, without indentation and comments: every output contains it. `viewer.js` puts the others together.
static SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let files = [
        include_str!("payload.js"),
        include_str!("page.js"),
        include_str!("values.js"),
        include_str!("colors.js"),
        include_str!("camera.js"),
        include_str!("surface.js"),
        include_str!("shown.js"),
        include_str!("shaders.js"),
        include_str!("card.js"),
        include_str!("scene.js"),
        include_str!("pick.js"),
        include_str!("box.js"),
        include_str!("overlay.js"),
        include_str!("frames.js"),
        include_str!("player.js"),
        include_str!("screen.js"),
        include_str!("pointer.js"),
        include_str!("controls.js"),
        include_str!("viewer.js"),
    ];
    let lines = files.iter().flat_map(|file| file.lines()).map(str::trim_start).filter(|line| !line.starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
});

/// JSON that cannot end the script element that contains it.
fn in_script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}
