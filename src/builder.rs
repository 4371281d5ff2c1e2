//! The common part of configurations, `ConvConfig::new().stride(2).key("a")`, and of choices that have names in text and files.

/// Gives a configuration `new()` and a method for each field.
macro_rules! setters {
    ($config:ident $(<$life:lifetime>)? $([const $axes:ident])? { $($method:ident($arg:ident: $type:ty) => $field:ident = $value:expr;)* }) => {
        impl $(<$life>)? $(<const $axes: usize>)? $config $(<$life>)? $(<$axes>)? {
            /// The default configuration; change it with the methods named after its fields.
            pub fn new() -> Self {
                Self::default()
            }

            $(
                #[doc = concat!("The same configuration with another `", stringify!($field), "`.")]
                #[must_use]
                pub fn $method(mut self, $arg: $type) -> Self {
                    self.$field = $value;
                    self
                }
            )*
        }
    };
}

/// Implements parsing and printing for a choice with `from_name` and `name`.
macro_rules! named {
    ($choice:ident) => {
        named!($choice, |choice: &Self| choice.name());
    };
    ($choice:ident, $name:expr) => {
        impl std::str::FromStr for $choice {
            type Err = crate::Error;

            fn from_str(name: &str) -> crate::Result<Self> {
                Self::from_name(name)
            }
        }

        impl std::fmt::Display for $choice {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                let name = $name;
                f.pad(name(self).as_ref())
            }
        }
    };
}

/// The name of a choice in files.
pub(crate) fn name_in_files<C: serde::Serialize + std::fmt::Debug>(choice: &C) -> String {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{choice:?}"),
    }
}
