//! [`Dropdown`], [`Checkbox`] and [`Button`].

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::control::control;
use super::core::Core;
use crate::{Error, Result};

/// One of several values, which a reader selects in a menu (ipywidgets' `Dropdown`). Clones are the same menu.
#[derive(Debug)]
pub struct Dropdown<T> {
    pub(super) core: Arc<Core>,
    options: Arc<[T]>,
}

impl<T> Clone for Dropdown<T> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), options: Arc::clone(&self.options) }
    }
}

/// A menu of `options`; the first one is selected.
///
/// # Errors
/// [`Error::Argument`] if there are no options.
///
/// ```
/// use wavemesh::notebook::dropdown;
/// let wavelet = dropdown("wavelet", ["haar", "bior4.4"])?;
/// assert_eq!(wavelet.get(), "haar");
/// wavelet.pick(1);
/// assert_eq!(wavelet.get(), "bior4.4");
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn dropdown<T: fmt::Display + Clone + Send + Sync + 'static>(
    description: &str,
    options: impl IntoIterator<Item = T>,
) -> Result<Dropdown<T>> {
    let options: Arc<[T]> = options.into_iter().collect();
    if options.is_empty() {
        let (got, expected) = ("none".to_owned(), "one option or more".to_owned());
        return Err(Error::Argument { op: "dropdown", name: "options", got, expected });
    }
    let labels: Vec<String> = options.iter().map(T::to_string).collect();
    let count = options.len() as u64;
    let fields = json!({ "description": description, "_options_labels": labels, "index": 0 });
    let admit = move |_: &Value, asked: &Value| asked.as_u64().map(|index| json!(index.min(count - 1)));
    Ok(Dropdown { core: Core::new("Dropdown", Some("DescriptionStyle"), "index", fields, admit), options })
}

impl<T: fmt::Display + Clone + Send + Sync + 'static> Dropdown<T> {
    /// Selects the option `index`, counted from 0, as a reader would; an index beyond the end selects the last.
    pub fn pick(&self, index: usize) {
        self.core.choose(&json!(index));
    }

    fn index(&self) -> usize {
        let index = self.core.get("index").as_u64().unwrap_or_default();
        usize::try_from(index).unwrap_or_default().min(self.options.len() - 1)
    }

    fn value_of(&self) -> T {
        self.options[self.index()].clone()
    }

    fn told(&self) -> String {
        self.options[self.index()].to_string()
    }
}

control!([T: fmt::Display + Clone + Send + Sync + 'static] Dropdown<T>, T);

/// Yes or no (ipywidgets' `Checkbox`). Clones are the same checkbox.
#[derive(Clone, Debug)]
pub struct Checkbox {
    pub(super) core: Arc<Core>,
}

/// A checkbox that is ticked if `value` is true.
///
/// ```
/// use wavemesh::notebook::checkbox;
/// assert!(checkbox("wireframe", true).get());
/// ```
pub fn checkbox(description: &str, value: bool) -> Checkbox {
    let fields = json!({ "description": description, "value": value, "indent": false });
    let admit = |_: &Value, asked: &Value| asked.as_bool().map(Value::from);
    Checkbox { core: Core::new("Checkbox", Some("CheckboxStyle"), "value", fields, admit) }
}

impl Checkbox {
    /// Ticks or clears the checkbox, as a reader would.
    pub fn set(&self, value: bool) {
        self.core.choose(&value.into());
    }

    fn value_of(&self) -> bool {
        self.core.get("value").as_bool().unwrap_or_default()
    }

    fn told(&self) -> String {
        if self.value_of() { "yes" } else { "no" }.to_owned()
    }
}

control!([] Checkbox, bool);

/// A button to press (ipywidgets' `Button`). Its value is the number of times it was pressed. Clones are the same button.
#[derive(Clone, Debug)]
pub struct Button {
    pub(super) core: Arc<Core>,
}

/// A button with the text `description`.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use wavemesh::notebook::button;
/// static MADE: AtomicU32 = AtomicU32::new(0);
/// let another = button("Another");
/// another.on_change(|_| { MADE.fetch_add(1, Ordering::SeqCst); });
/// another.press(); // as a reader does
/// assert_eq!((another.get(), MADE.load(Ordering::SeqCst)), (1, 1));
/// ```
pub fn button(description: &str) -> Button {
    // Only this side knows the count: the page has no such field.
    let fields = json!({ "description": description, "button_style": "", "icon": "", "presses": 0 });
    let admit = |presses: &Value, _: &Value| presses.as_u64().map(|presses| json!(presses + 1));
    Button { core: Core::new("Button", Some("ButtonStyle"), "presses", fields, admit) }
}

impl Button {
    /// Presses the button, as a reader would.
    pub fn press(&self) {
        self.core.choose(&Value::Null);
    }

    fn value_of(&self) -> u64 {
        self.core.get("presses").as_u64().unwrap_or_default()
    }

    fn told(&self) -> String {
        format!("pressed {} times", self.value_of())
    }
}

control!([] Button, u64);
