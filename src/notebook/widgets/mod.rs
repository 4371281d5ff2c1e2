//! Sliders, menus, checkboxes and buttons for readers, and [`interact`], which updates what depends on them.
//!
//! They are Jupyter's own widgets (`@jupyter-widgets/controls`), so JupyterLab, VS Code and Google Colab draw them like Python's. Without a
//! live page (in a saved notebook, under stock `evcxr_jupyter`, in a terminal), their values are shown as text.
//!
//! ```
//! use wavemesh::prelude::*;
//! let level = notebook::slider("level", 0.0..=0.1).value(0.02).step(0.001);
//! let wireframe = notebook::checkbox("wireframe", false);
//! let shown = notebook::interact((&level, &wireframe), |(level, wireframe)| format!("{level} {wireframe}"));
//! assert!(shown.rich().plain().contains("0.02 false"));
//! level.set(0.05); // as a reader does who moves it
//! assert_eq!(level.get(), 0.05);
//! ```

mod choices;
mod control;
mod core;
mod interact;
mod page;
mod slider;

pub use choices::{Button, Checkbox, Dropdown, button, checkbox, dropdown};
pub use control::Controls;
pub use interact::{Interact, View, interact};
pub use page::{OpenComm, SendComm, reach_page};
pub use slider::{Slider, SliderNumber, slider};
