//! Shows the value at the end of a cell, for cells without the WaveMesh library: by `evcxr_display`, else by Debug, else by the name of its
//! type.

use std::fmt::Debug;

/// Shows the value at the end of a cell. One build is enough for any type: the methods below are tried in the order of their receivers
/// (autoref specialisation).
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

/// The same for cells with the WaveMesh library, which shows values that have no `evcxr_display` of their own. The trait with that method
/// in the library's prelude must not be in scope.
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

/// The same for a value whose type follows only from defaults, such as the result of `|x| x + 1` for 2: a method call needs the type at
/// once, a function call does not.
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

/// Gives every type an `evcxr_display` that shows nothing, for types without their own.
pub trait Fallback {
    fn evcxr_display(&self) -> NotShown {
        NotShown
    }
}
impl<T: ?Sized> Fallback for T {}

/// Tells a type's own `evcxr_display` from the fallback.
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
