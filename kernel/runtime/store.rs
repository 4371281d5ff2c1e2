//! The variables of a notebook, from one cell to the next: evcxr's variable store, with sizes.

use std::any::{Any, type_name};
use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::Report;

/// Variables by name.
#[derive(Default)]
pub struct VariableStore {
    variables: HashMap<String, Box<dyn Any>>,
}

impl VariableStore {
    pub fn new() -> VariableStore {
        VariableStore::default()
    }

    pub fn put_variable<T: 'static>(&mut self, name: &str, value: T) {
        // No later cell could name the type, so the value ends with this one.
        if type_name::<T>().contains("{{closure}}") {
            return self.drop_variable(name);
        }
        let bytes = size_of::<T>() + heap_bytes(&value);
        crate::tell_kernel(&Report::Variable {
            name: name.to_owned(),
            bytes: bytes as u64,
            type_name: type_name::<T>().to_owned(),
        });
        self.variables.insert(name.to_owned(), Box::new(value));
    }

    /// Puts a variable of an earlier cell back, unless this cell has stored a new one under its name.
    pub fn keep_variable<T: 'static>(&mut self, name: &str, value: T) {
        if !self.variables.contains_key(name) {
            self.put_variable(name, value);
        }
    }

    pub fn drop_variable(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Whether the variable is there and has this type. If not, it is lost, and the kernel is told, which runs the cell again.
    pub fn check_variable<T: 'static>(&mut self, name: &str) -> bool {
        let same = self.variables.get(name).is_some_and(|value| value.is::<T>());
        if !same {
            let reason = match self.variables.remove(name) {
                Some(_) => "its type was defined anew",
                None => "a cell failed while it held it",
            };
            crate::tell_kernel(&Report::Lost { name: name.to_owned(), reason: reason.to_owned() });
        }
        same
    }

    pub fn take_variable<T: 'static>(&mut self, name: &str) -> T {
        match self.variables.remove(name).map(|value| value.downcast::<T>()) {
            Some(Ok(value)) => *value,
            Some(Err(_)) => panic!("the variable `{name}` changed its type"),
            None => panic!("the variable `{name}` is gone: an earlier cell failed while it held it"),
        }
    }

    pub fn lazy_arc<T: 'static, F: FnOnce() -> T>(&mut self, name: &str, create: F) -> Arc<T> {
        let value = self.variables.entry(name.to_owned()).or_insert_with(|| Box::new(Arc::new(create())));
        match value.downcast_ref::<Arc<T>>() {
            Some(value) => Arc::clone(value),
            None => panic!("`{name}` changed its type"),
        }
    }

    pub fn merge(&mut self, other: VariableStore) {
        self.variables.extend(other.variables);
    }
}

pub fn create_variable_store() -> *mut VariableStore {
    Box::into_raw(Box::default())
}

/// What a value holds on the heap, for the types whose contents are plain.
fn heap_bytes(value: &dyn Any) -> usize {
    macro_rules! vectors {
        ($($element:ty)*) => {$(
            if let Some(vector) = value.downcast_ref::<Vec<$element>>() {
                return vector.capacity() * size_of::<$element>();
            }
        )*};
    }
    vectors!(f32 f64 u8 i8 u16 i16 u32 i32 u64 i64 usize isize bool char [f32; 2] [f32; 3] [f64; 3] [u32; 3] [i32; 3] [i32; 4] (f64, f64) (f32, f32));
    if let Some(text) = value.downcast_ref::<String>() {
        return text.capacity();
    }
    if let Some(texts) = value.downcast_ref::<Vec<String>>() {
        return texts.iter().map(|text| text.capacity() + size_of::<String>()).sum();
    }
    0
}
