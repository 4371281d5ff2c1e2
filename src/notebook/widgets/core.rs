//! The common part of all widgets: a model, as the page knows it, and its watchers.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Map, Value, json};

use super::page;
use crate::notebook::{MimeBundle, escape};
use crate::sync::lock;

/// The version of Jupyter's widgets to which these models belong.
const CONTROLS: &str = "2.0.0";
const BASE: &str = "2.0.0";

/// A widget: the fields of its model, which are the same on the page and here.
pub(super) struct Core {
    /// The name of its classes on the page: `FloatSlider` has a `FloatSliderModel` and a `FloatSliderView`.
    class: &'static str,
    /// The name of its style, for widgets with a description.
    style: Option<&'static str>,
    /// The field that the reader sets.
    field: &'static str,
    /// Given the present value and the requested one: the nearest allowed value, or none.
    admit: Admit,
    model: Mutex<Model>,
    watchers: Mutex<Vec<Watcher>>,
    /// A reference to itself, for messages from the page.
    own: Weak<Core>,
}

type Admit = Box<dyn Fn(&Value, &Value) -> Option<Value> + Send + Sync>;
type Watcher = Arc<dyn Fn() + Send + Sync>;

struct Model {
    fields: Map<String, Value>,
    /// The id by which the page knows it, after it was sent there.
    id: Option<String>,
}

impl Core {
    pub fn new(
        class: &'static str,
        style: Option<&'static str>,
        field: &'static str,
        fields: Value,
        admit: impl Fn(&Value, &Value) -> Option<Value> + Send + Sync + 'static,
    ) -> Arc<Core> {
        let fields = fields.as_object().cloned().unwrap_or_default();
        Arc::new_cyclic(|own| Core {
            class,
            style,
            field,
            admit: Box::new(admit),
            model: Mutex::new(Model { fields, id: None }),
            watchers: Mutex::default(),
            own: own.clone(),
        })
    }

    /// The value of a field.
    pub fn get(&self, field: &str) -> Value {
        lock(&self.model).fields.get(field).cloned().unwrap_or(Value::Null)
    }

    /// Sets a field, here and on the page, without calling watchers.
    pub fn set(&self, field: &str, value: Value) {
        let id = {
            let mut model = lock(&self.model);
            model.fields.insert(field.to_owned(), value.clone());
            model.id.clone()
        };
        if let Some(id) = id {
            page::update(&id, &json!({ field: value }));
        }
    }

    /// Sets the field that a reader may set, as a reader would: to the nearest allowed value. Calls watchers.
    pub fn choose(&self, value: &Value) {
        if let Some(value) = (self.admit)(&self.get(self.field), value) {
            self.set(self.field, value);
            self.changed();
        }
    }

    /// Calls `watcher` from now on whenever a reader has changed the widget.
    pub fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        lock(&self.watchers).push(Arc::new(watcher));
    }

    /// Calls the watchers.
    pub fn changed(&self) {
        // A watcher may add another one.
        let watchers = lock(&self.watchers).clone();
        watchers.iter().for_each(|watcher| watcher());
    }

    /// The id by which the page knows the widget; `None` if there is no page.
    pub fn on_page(&self) -> Option<String> {
        if let Some(id) = lock(&self.model).id.clone() {
            return Some(id);
        }
        if let Some(style) = self.style
            && let Some(id) = page::open(style_state(style), |_| {})
        {
            lock(&self.model).fields.insert("style".to_owned(), reference(&id).into());
        }
        let own = self.own.clone();
        let id = page::open(self.state(), move |message| {
            if let Some(core) = own.upgrade() {
                core.take(&message);
            }
        })?;
        // The widget lives as long as the page may show it.
        if let Some(own) = self.own.upgrade() {
            std::mem::forget(own);
        }
        lock(&self.model).id.get_or_insert(id).clone().into()
    }

    /// The whole model, when the page requests it.
    fn state(&self) -> Value {
        let mut state = lock(&self.model).fields.clone();
        state.extend(module("@jupyter-widgets/controls", CONTROLS, self.class));
        Value::Object(state)
    }

    /// Handles a message from the page.
    fn take(&self, message: &Value) {
        match message["method"].as_str() {
            Some("update") => {
                let asked = message["state"].get(self.field);
                if let Some(value) = asked.and_then(|asked| (self.admit)(&self.get(self.field), asked)) {
                    lock(&self.model).fields.insert(self.field.to_owned(), value);
                    self.changed();
                }
            }
            Some("request_state") => {
                let id = lock(&self.model).id.clone();
                id.iter().for_each(|id| page::update(id, &self.state()));
            }
            Some("custom") if message["content"]["event"] == "click" => self.choose(&Value::Null),
            _ => {}
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:?} = {}", self.class, self.get("description"), self.get(self.field))
    }
}

/// How a model refers to another model.
pub(super) fn reference(id: &str) -> String {
    format!("IPY_MODEL_{id}")
}

fn module(module: &str, version: &str, class: &str) -> Map<String, Value> {
    let state = json!({
        "_model_module": module, "_model_module_version": version, "_model_name": format!("{class}Model"),
        "_view_module": module, "_view_module_version": version, "_view_name": format!("{class}View"),
        "_view_count": null,
    });
    state.as_object().cloned().unwrap_or_default()
}

/// A style in which a description has the room that it needs.
fn style_state(class: &str) -> Value {
    let mut state = module("@jupyter-widgets/controls", CONTROLS, class);
    state.extend(
        module("@jupyter-widgets/base", BASE, "Style").into_iter().filter(|(name, _)| name.starts_with("_view")),
    );
    state.insert("description_width".to_owned(), "initial".into());
    Value::Object(state)
}

/// A widget for the page, with a text and HTML for places without one.
pub(super) fn bundle(core: &Core, text: String, html: String) -> MimeBundle {
    let bundle = MimeBundle::text(text).with_html(html);
    match core.on_page() {
        Some(id) => bundle.with(
            "application/vnd.jupyter.widget-view+json",
            json!({ "model_id": id, "version_major": 2, "version_minor": 0 }),
        ),
        None => bundle,
    }
}

/// A description and a value, in the form without a page.
pub(super) fn row(description: &str, value: &str) -> String {
    format!("<div><span style=\"opacity:.7\">{}</span> <b>{}</b></div>", escape(description), escape(value))
}
