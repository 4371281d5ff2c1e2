//! [`Controls`]: one or several widgets for [`interact`](super::interact), and what all widgets have in common.

use std::sync::Arc;

use super::core::Core;

/// One widget that a reader sets, or a tuple of up to six: the values on which a view depends. [`Slider`](super::Slider),
/// [`Dropdown`](super::Dropdown), [`Checkbox`](super::Checkbox) and [`Button`](super::Button) implement this, and so do references to them.
pub trait Controls {
    /// Their values: one value, or a tuple.
    type Values;

    /// The same widgets, for the lifetime of a view.
    #[doc(hidden)]
    type Kept: Controls<Values = Self::Values> + Send + 'static;

    #[doc(hidden)]
    fn kept(&self) -> Self::Kept;

    /// The present values.
    fn values(&self) -> Self::Values;

    #[doc(hidden)]
    fn visit(&self, visitor: &mut dyn FnMut(Part));
}

/// A widget as a part of others.
#[doc(hidden)]
pub struct Part<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) told: String,
}

/// A widget's description and value as text.
pub(super) fn description(core: &Core) -> String {
    core.get("description").as_str().unwrap_or_default().to_owned()
}

/// Writes the methods of every widget. The type must have a field `core` and the methods `value_of` and `told`.
macro_rules! control {
    ([$($generics:tt)*] $type:ty, $value:ty) => {
        impl<$($generics)*> $type {
            /// The present value.
            pub fn get(&self) -> $value {
                self.value_of()
            }

            /// Calls `watcher` with the new value whenever a reader has changed it, on the thread that serves the page.
            pub fn on_change(&self, watcher: impl Fn($value) + Send + Sync + 'static) {
                let own = self.clone();
                self.core.watch(move || watcher(own.get()));
            }
        }

        impl<$($generics)*> $crate::notebook::Rich for $type {
            fn rich(&self) -> $crate::notebook::MimeBundle {
                let (description, told) = (super::control::description(&self.core), self.told());
                let text = format!("{description}: {told}");
                super::core::bundle(&self.core, text, super::core::row(&description, &told))
            }
        }

        impl<$($generics)*> super::Controls for $type {
            type Values = $value;
            type Kept = $type;

            fn kept(&self) -> Self::Kept {
                self.clone()
            }

            fn values(&self) -> $value {
                self.get()
            }

            fn visit(&self, visitor: &mut dyn FnMut(super::control::Part)) {
                visitor(super::control::Part { core: &self.core, told: self.told() });
            }
        }

        impl<$($generics)*> super::Controls for &$type {
            type Values = $value;
            type Kept = $type;

            fn kept(&self) -> Self::Kept {
                (*self).clone()
            }

            fn values(&self) -> $value {
                self.get()
            }

            fn visit(&self, visitor: &mut dyn FnMut(super::control::Part)) {
                (**self).visit(visitor);
            }
        }
    };
}
pub(super) use control;

macro_rules! tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Controls),+> Controls for ($($name,)+) {
            type Values = ($($name::Values,)+);
            type Kept = ($($name::Kept,)+);

            fn kept(&self) -> Self::Kept {
                ($(self.$index.kept(),)+)
            }

            fn values(&self) -> Self::Values {
                ($(self.$index.values(),)+)
            }

            fn visit(&self, visitor: &mut dyn FnMut(Part)) {
                $(self.$index.visit(visitor);)+
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
