//! Configurations are built one way: `ConvConfig::new().stride(2).key("a")`.

/// Gives a configuration `new()` and a method for each field.
macro_rules! setters {
    ($config:ident $(<$life:lifetime>)? { $($method:ident($arg:ident: $type:ty) => $field:ident = $value:expr;)* }) => {
        impl $(<$life>)? $config $(<$life>)? {
            /// The default configuration, to be changed by the methods that are named after its fields.
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
