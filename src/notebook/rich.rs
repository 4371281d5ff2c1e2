//! [`Rich`], the trait of values that show themselves; [`Display`], an output that shows one; and [`show!`](crate::notebook::show), which
//! shows any value.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frontend::{Frontend, Message};
use super::values::debug_bundle;
use super::{MimeBundle, escape};

/// A value that shows itself: a card, a plot, a viewer.
///
/// ```
/// use wavemesh::notebook::{MimeBundle, Rich};
/// struct Temperature(f64);
/// impl Rich for Temperature {
///     fn rich(&self) -> MimeBundle {
///         MimeBundle::text(format!("{} °C", self.0)).with_html(format!("<b>{}</b> °C", self.0))
///     }
/// }
/// assert_eq!(Temperature(21.5).rich().plain(), "21.5 °C");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no display of its own: end the cell with the value, write `notebook::display!(value)`, or print it with `println!(\"{{:?}}\", …)`",
    label = "this has no display of its own"
)]
pub trait Rich {
    /// The value in all its representations; `text/plain` must be among them.
    fn rich(&self) -> MimeBundle;

    /// The output in which the value is shown already, if any. If this output is in the current cell, the value at the end of the cell
    /// updates it instead of being shown a second time.
    fn shown_in(&self) -> Option<Display> {
        None
    }

    /// Shows the value now, while the cell runs. The returned [`Display`] can change it later. At the end of a cell no call is needed: the
    /// value shows itself.
    #[doc(alias = "show")]
    fn display(&self) -> Display
    where
        Self: Sized,
    {
        display(self)
    }
}

/// A shown output. [`update`](Self::update) changes it in place, also from a later cell.
#[derive(Clone, Debug)]
pub struct Display {
    id: String,
}

impl Display {
    /// Replaces what is shown.
    pub fn update(&self, value: impl Rich) {
        self.send(&value.rich(), true);
    }

    /// Replaces what is shown by a state that will soon be replaced again; frontends without live updates may skip it.
    pub(crate) fn update_passing(&self, value: impl Rich) {
        self.send(&value.rich(), false);
    }

    /// The output's Jupyter `display_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn send(&self, bundle: &MimeBundle, last: bool) {
        Frontend::current().send(&Message::Update { bundle, id: &self.id, last });
    }
}

/// Shows a value now, while the cell runs.
///
/// ```
/// use wavemesh::notebook::{display, html, markdown};
/// let shown = display(markdown("Training **starts**"));
/// shown.update(html("<b>done</b>"));
/// ```
pub fn display(value: impl Rich) -> Display {
    let shown = Display { id: new_id() };
    Frontend::current().send(&Message::Display { bundle: &value.rich(), id: &shown.id });
    shown
}

/// A `display_id` that no other output has, in this run of the kernel or an earlier one.
pub(crate) fn new_id() -> String {
    static RUN: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let run = *RUN.get_or_init(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (since.as_nanos() as u64).rotate_left(20) ^ u64::from(std::process::id())
    });
    format!("wm{run:016x}{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl<T: Rich + ?Sized> Rich for &T {
    fn rich(&self) -> MimeBundle {
        (**self).rich()
    }

    fn shown_in(&self) -> Option<Display> {
        (**self).shown_in()
    }
}

impl<T: Rich + ?Sized> Rich for Box<T> {
    fn rich(&self) -> MimeBundle {
        (**self).rich()
    }

    fn shown_in(&self) -> Option<Display> {
        (**self).shown_in()
    }
}

impl<T: Rich + ?Sized> Rich for std::sync::Arc<T> {
    fn rich(&self) -> MimeBundle {
        (**self).rich()
    }

    fn shown_in(&self) -> Option<Display> {
        (**self).shown_in()
    }
}

impl<T: Rich> Rich for Option<T> {
    fn rich(&self) -> MimeBundle {
        self.as_ref().map_or_else(|| MimeBundle::text("None"), T::rich)
    }
}

impl<T: Rich, E: std::fmt::Display> Rich for Result<T, E> {
    fn rich(&self) -> MimeBundle {
        match self {
            Ok(value) => value.rich(),
            Err(error) => error_line(error),
        }
    }
}

/// An error as a display of one line.
fn error_line(error: &dyn std::fmt::Display) -> MimeBundle {
    let text = error.to_string();
    let html =
        format!("<div style=\"border-left:3px solid #d1495b;padding:2px 8px\"><b>Error</b> {}</div>", escape(&text));
    MimeBundle::text(format!("Error: {text}")).with_html(html)
}

/// Shows nothing, as for an expression without a value.
impl Rich for () {
    fn rich(&self) -> MimeBundle {
        MimeBundle::nothing()
    }
}

impl Rich for MimeBundle {
    fn rich(&self) -> MimeBundle {
        self.clone()
    }
}

/// Shows a bundle as the value of the running cell (Jupyter's `execute_result`). An empty bundle shows nothing.
pub fn result_bundle(bundle: &MimeBundle) {
    send_result(bundle, None);
}

fn send_result(bundle: &MimeBundle, output: Option<Display>) {
    if !bundle.is_empty() {
        Frontend::current().send(&Message::Result { bundle, id: output.as_ref().map(Display::id) });
    }
}

// These are not generic, so that their code is in the library and is not compiled again for each cell that shows something.

/// Shows a value as the value of the running cell.
fn result(value: &dyn Rich) {
    send_result(&value.rich(), value.shown_in());
}

/// The same for a value that shows its `Debug` text.
fn debug_result(value: &dyn Debug) {
    result_bundle(&debug_bundle(value));
}

fn error_result(error: &dyn std::fmt::Display) {
    result_bundle(&error_line(error));
}

/// Shows the value of an expression as the result of the running cell: its card if it is [`Rich`], one line if it is an `Err`, otherwise
/// its `Debug` text, otherwise the name of its type. It always compiles and never moves a variable.
///
/// The kernel calls this for the expression at the end of a cell; you need it only outside a notebook.
///
/// ```
/// use wavemesh::notebook::show;
/// struct Opaque;
/// let (numbers, opaque) = (vec![1, 2, 3], Opaque);
/// show!(numbers); // [1, 2, 3]
/// show!(opaque); //  a value of type Opaque
/// drop((numbers, opaque));
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __wavemesh_show {
    ($value:expr) => {{
        #[allow(unused_imports)]
        use $crate::notebook::specialise::{ByDebug as _, ByError as _, ByName as _, ByRich as _};
        (&&&&$crate::notebook::specialise::Shown(&$value)).wavemesh_show()
    }};
}
#[doc(inline)]
pub use crate::__wavemesh_show as show;

/// Shows the value of an expression now, while the cell runs, in the same way as at the end of a cell: its card if it is [`Rich`],
/// otherwise its `Debug` text, otherwise the name of its type. It never moves a variable. The returned [`Display`] can change what is
/// shown.
///
/// ```
/// use wavemesh::notebook;
/// #[derive(Debug)]
/// struct Step(u32);
/// let step = Step(1);
/// let shown = notebook::display!(step);
/// shown.update(notebook::markdown("**done**"));
/// drop(step);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __wavemesh_display {
    ($value:expr) => {{
        #[allow(unused_imports)]
        use $crate::notebook::specialise::{ByDebug as _, ByError as _, ByName as _, ByRich as _};
        $crate::notebook::display((&&&&$crate::notebook::specialise::Shown(&$value)).wavemesh_bundle())
    }};
}
#[doc(inline)]
pub use crate::__wavemesh_display as display;

/// Stock evcxr calls `evcxr_display` on a value; with this trait in scope (the prelude has it), every rich value has that method.
#[doc(hidden)]
pub trait EvcxrDisplay: Rich {
    fn evcxr_display(&self) {
        result(&self);
    }
}
impl<T: Rich> EvcxrDisplay for T {}

/// The implementation of [`show!`](crate::notebook::show). Method lookup tries `&&&&Shown`, `&&&Shown` and so on in turn, so the first
/// trait that fits the type wins (autoref specialisation).
#[doc(hidden)]
pub mod specialise {
    use super::*;

    pub struct Shown<'a, T: ?Sized>(pub &'a T);

    pub trait ByRich {
        fn wavemesh_show(&self);
        fn wavemesh_bundle(&self) -> MimeBundle;
    }
    impl<T: Rich + ?Sized> ByRich for &&&Shown<'_, T> {
        fn wavemesh_show(&self) {
            result(&self.0);
        }

        fn wavemesh_bundle(&self) -> MimeBundle {
            self.0.rich()
        }
    }

    pub trait ByError {
        fn wavemesh_show(&self);
        fn wavemesh_bundle(&self) -> MimeBundle;
    }
    impl<T: Debug, E: std::fmt::Display> ByError for &&Shown<'_, Result<T, E>> {
        fn wavemesh_show(&self) {
            match self.0 {
                Ok(value) => debug_result(&Ok::<_, ()>(value)),
                Err(error) => error_result(error),
            }
        }

        fn wavemesh_bundle(&self) -> MimeBundle {
            match self.0 {
                Ok(value) => debug_bundle(&Ok::<_, ()>(value)),
                Err(error) => error_line(error),
            }
        }
    }

    pub trait ByDebug {
        fn wavemesh_show(&self);
        fn wavemesh_bundle(&self) -> MimeBundle;
    }
    impl<T: Debug + ?Sized> ByDebug for &Shown<'_, T> {
        fn wavemesh_show(&self) {
            debug_result(&self.0);
        }

        fn wavemesh_bundle(&self) -> MimeBundle {
            debug_bundle(&self.0)
        }
    }

    pub trait ByName {
        fn wavemesh_show(&self);
        fn wavemesh_bundle(&self) -> MimeBundle;
    }
    impl<T: ?Sized> ByName for Shown<'_, T> {
        fn wavemesh_show(&self) {
            result_bundle(&self.wavemesh_bundle());
        }

        fn wavemesh_bundle(&self) -> MimeBundle {
            MimeBundle::text(format!("a value of type {}", short_type_name(std::any::type_name::<T>())))
        }
    }
}

/// `alloc::vec::Vec<my::Type>` without its paths: `Vec<Type>`.
pub(crate) fn short_type_name(full: &str) -> String {
    let mut short = String::new();
    let mut word = String::new();
    for c in full.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else if c == ':' {
            word.clear();
        } else {
            short.push_str(&std::mem::take(&mut word));
            short.push(c);
        }
    }
    short + &word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn type_names_lose_their_paths() {
        assert_eq!(
            short_type_name("alloc::vec::Vec<(core::option::Option<u8>, my_crate::Type)>"),
            "Vec<(Option<u8>, Type)>"
        );
    }

    #[test]
    fn an_error_shows_its_message_escaped() {
        let failed: Result<MimeBundle, &str> = Err("<b>no</b>");
        assert_eq!(failed.rich().plain(), "Error: <b>no</b>");
        assert!(failed.rich().to_html().contains("&lt;b&gt;no&lt;/b&gt;"));
    }

    #[test]
    fn show_takes_anything_and_moves_nothing() {
        struct Opaque;
        let (opaque, text, unsized_slice) = (Opaque, String::from("x"), [1u8, 2].as_slice());
        show!(opaque);
        show!(text);
        show!(*unsized_slice);
        show!(text.len() + 1);
        show!("literal");
        show!(1);
        show!(());
        show!(Some(MimeBundle::text("rich")));
        show!(if text.is_empty() { Err("e") } else { Ok(Opaque) });
        show!("12".parse::<i32>());
        show!("x".parse::<i32>());
        drop((opaque, text));
    }
}
