//! The value that ends a cell, for cells without the WaveMesh library: `evcxr_display`, else Debug, else the type's name.

use std::fmt::Debug;

/// Shows the value that ends a cell. One build suffices whatever its type: the methods below are tried in order of their
/// receivers, which is known as autoref specialisation.
#[macro_export]
macro_rules! show {
    ($value:expr) => {{
        #[allow(unused_imports)]
        use $crate::show::{ByDebug as _, ByEvcxr as _, ByName as _, Fallback as _};
        match &$value {
            value => (&&$crate::show::Shown(value)).kind().shown($crate::show::Shown(value), || value.evcxr_display()),
        }
    }};
}

/// The same for cells with the WaveMesh library, which shows what has no `evcxr_display` of its own. The trait of that method which the
/// library's prelude has must not be in scope.
#[macro_export]
macro_rules! show_richly {
    ($value:expr) => {{
        #[allow(unused_imports)]
        use $crate::show::{ByEvcxr as _, Fallback as _};
        match &$value {
            value => {
                if !value.evcxr_display().was_shown() {
                    ::wavemesh::notebook::show!(*value);
                }
            }
        }
    }};
}

/// The same for a value whose type follows from defaults alone, such as what `|x| x + 1` returns for 2: looking for a method asks for the type
/// at once, calling a function does not.
#[macro_export]
macro_rules! show_plainly {
    ($value:expr) => {
        $crate::show::plainly(&$value)
    };
}

pub fn plainly<T: Debug>(value: &T) {
    show_debug(value);
}

/// A value about to be shown.
pub struct Shown<'a, T: ?Sized>(pub &'a T);

/// What `evcxr_display` means for a type that has none of its own: nothing was shown.
pub trait Fallback {
    fn evcxr_display(&self) -> NotShown {
        NotShown
    }
}
impl<T: ?Sized> Fallback for T {}

/// Tells a type's own `evcxr_display` from ours.
pub struct NotShown;
pub trait ByEvcxr {
    fn was_shown(self) -> bool;
}
impl ByEvcxr for NotShown {
    fn was_shown(self) -> bool {
        false
    }
}
impl ByEvcxr for () {
    fn was_shown(self) -> bool {
        true
    }
}

pub struct DebugKind;
pub struct NameKind;

pub trait ByDebug {
    fn kind(&self) -> DebugKind {
        DebugKind
    }
}
impl<T: Debug + ?Sized> ByDebug for &Shown<'_, T> {}
pub trait ByName {
    fn kind(&self) -> NameKind {
        NameKind
    }
}
impl<T: ?Sized> ByName for Shown<'_, T> {}

impl DebugKind {
    pub fn shown<T: Debug + ?Sized, R: ByEvcxr>(self, value: Shown<T>, evcxr: impl FnOnce() -> R) {
        if !evcxr().was_shown() {
            show_debug(&value.0);
        }
    }
}

impl NameKind {
    pub fn shown<T: ?Sized, R: ByEvcxr>(self, _: Shown<T>, evcxr: impl FnOnce() -> R) {
        if !evcxr().was_shown() {
            show_text(std::any::type_name::<T>());
        }
    }
}

fn show_debug(value: &dyn Debug) {
    let one_line = format!("{value:?}");
    match one_line.as_str() {
        "()" => {}
        _ if one_line.len() > 100 => show_text(&format!("{value:#?}")),
        _ => show_text(&one_line),
    }
}

fn show_text(text: &str) {
    let text = crate::escape(text);
    crate::send_frame(&format!(
        r#"{{"msg_type":"execute_result","content":{{"data":{{"text/plain":"{text}"}},"metadata":{{}}}}}}"#
    ));
}
