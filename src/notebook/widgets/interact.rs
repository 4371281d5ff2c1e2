//! [`interact`]: a view that is computed again when a reader moves a control on which it depends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, Weak};

use serde_json::{Value, json};

use super::control::{Controls, description};
use super::core::{Core, bundle, reference, row};
use crate::notebook::{MimeBundle, Rich, escape};
use crate::sync::lock;

/// Controls with a view that depends on them. See [`interact`].
#[derive(Clone)]
pub struct Interact(Arc<Inner>);

struct Inner {
    /// The controls and the view, one below the other.
    whole: Arc<Core>,
    /// The output on the page that shows the view.
    output: Arc<Core>,
    controls: Vec<Arc<Core>>,
    told: Box<dyn Fn() -> Vec<(String, String)> + Send + Sync>,
    /// Computes the view for the present values of the controls.
    view: Mutex<Box<dyn FnMut() -> MimeBundle + Send>>,
    shown: Mutex<MimeBundle>,
    work: Mutex<Work>,
    on_page: Once,
}

/// Whether a thread computes a view, and whether that view is out of date already.
#[derive(Default)]
struct Work {
    running: bool,
    again: bool,
}

/// What [`interact`] can show: anything [`Rich`], text, and numbers.
pub trait View {
    #[doc(hidden)]
    fn bundle(&self) -> MimeBundle;
}

impl<T: Rich> View for T {
    fn bundle(&self) -> MimeBundle {
        self.rich()
    }
}

macro_rules! texts {
    ($($type:ty)*) => {
        $(impl View for $type {
            fn bundle(&self) -> MimeBundle {
                let text = self.to_string();
                MimeBundle::text(text.clone()).with_html(format!("<pre style=\"margin:0\">{}</pre>", escape(&text)))
            }
        })*
    };
}
texts!(String &str f32 f64 u8 u16 u32 u64 usize i8 i16 i32 i64 isize bool);

/// Shows `controls`, and below them what `view` returns for their values, now and whenever a reader has moved one. The page stays usable
/// while a view is computed; of several moves in that time, the last one counts. An `Err` or a panic is shown as a line.
///
/// A view is shown as a picture, as HTML without scripts, or as text: an interactive viewer shows its picture.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sdf;
/// let shape = shapes::torus(0.5, 0.2).to_grid(32)?;
/// let level = notebook::slider("level", -0.1..=0.1).value(0.0);
/// let shown = notebook::interact(&level, move |level| sdf::marching_cubes(&shape, level as f32));
/// assert!(shown.rich().get("text/html").is_some());
/// # Ok::<(), Error>(())
/// ```
pub fn interact<C: Controls, V: View>(controls: C, mut view: impl FnMut(C::Values) -> V + Send + 'static) -> Interact {
    let kept = Arc::new(Mutex::new(controls.kept()));
    let mut cores = Vec::new();
    controls.visit(&mut |part| cores.push(Arc::clone(part.core)));
    let of_view = Arc::clone(&kept);
    let view = move || {
        let values = lock(&of_view).values();
        view(values).bundle()
    };
    let told = move || {
        let mut told = Vec::new();
        lock(&kept).visit(&mut |part| told.push((description(part.core), part.told)));
        told
    };
    let nothing = |_: &Value, _: &Value| None;
    let inner = Arc::new(Inner {
        whole: Core::new("VBox", None, "", json!({ "box_style": "" }), nothing),
        output: Core::new("HTML", None, "", json!({ "value": "", "description": "" }), nothing),
        controls: cores,
        told: Box::new(told),
        view: Mutex::new(Box::new(view)),
        shown: Mutex::default(),
        work: Mutex::default(),
        on_page: Once::new(),
    });
    inner.make();
    for core in &inner.controls {
        let inner = Arc::downgrade(&inner);
        core.watch(move || Inner::make_soon(&inner));
    }
    Interact(inner)
}

impl Inner {
    fn make(&self) {
        let made = catch_unwind(AssertUnwindSafe(|| (lock(&self.view))()));
        // The panic hook has reported the panic already.
        let made = made.unwrap_or_else(|_| {
            let text = "Error: the view panicked";
            MimeBundle::text(text).with_html(format!("<b>{}</b>", escape(text)))
        });
        self.output.set("value", html_of(&made).into());
        *lock(&self.shown) = made;
    }

    /// Computes the view on another thread, and once more if it is requested in the meantime.
    fn make_soon(inner: &Weak<Inner>) {
        let Some(inner) = inner.upgrade() else { return };
        {
            let mut work = lock(&inner.work);
            if std::mem::replace(&mut work.running, true) {
                work.again = true;
                return;
            }
        }
        let work = move || {
            loop {
                inner.make();
                let mut work = lock(&inner.work);
                if !std::mem::take(&mut work.again) {
                    work.running = false;
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("interact".to_owned()).spawn(work);
        if let Err(error) = started {
            log::warn!("a view cannot be updated: {error}");
        }
    }
}

/// The form of a view on the page, where scripts do not run.
fn html_of(view: &MimeBundle) -> String {
    let has_script = view.get("text/html").is_some_and(|html| html.contains("<script"));
    match view.get("image/png") {
        Some(png) if has_script => format!("<img src=\"data:image/png;base64,{png}\" style=\"max-width:100%\">"),
        _ => view.to_html(),
    }
}

impl Rich for Interact {
    fn rich(&self) -> MimeBundle {
        let Inner { whole, output, controls, told, shown, .. } = &*self.0;
        let rows = told();
        let shown = lock(shown).clone();
        let mut text: String = rows.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        text.push_str(shown.plain());
        let mut html: String = rows.iter().map(|(name, value)| row(name, value)).collect();
        html.push_str(&html_of(&shown));
        let children: Option<Vec<String>> = controls.iter().chain([output]).map(|core| core.on_page()).collect();
        if let Some(children) = children {
            // It lives as long as the page may show it.
            self.0.on_page.call_once(|| std::mem::forget(Arc::clone(&self.0)));
            let children: Vec<String> = children.iter().map(|id| reference(id)).collect();
            whole.set("children", children.into());
        }
        bundle(whole, text, html)
    }
}

impl std::fmt::Debug for Interact {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_list().entries(&self.0.controls).finish()
    }
}
