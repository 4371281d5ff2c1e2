//! Libraries that are loaded while the process runs. They are never unloaded, because code and statics of earlier cells stay in use.

use std::ffi::{CStr, CString, c_void};
use std::io::{Error, Result};

/// A loaded library.
#[derive(Clone, Copy)]
pub struct Object(*mut c_void);

impl Object {
    /// Loads the library at `path`.
    pub fn open(path: &str) -> Result<Object> {
        let name = CString::new(path).map_err(Error::other)?;
        // SAFETY: the string ends in zero. The library's initialisers run: they are those of crates that the user's cells asked for.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() { Err(last_error()) } else { Ok(Object(library)) }
    }

    /// The function `name`.
    ///
    /// # Safety
    ///
    /// `F` must be the function's own type, a function pointer.
    pub unsafe fn function<F: Copy>(self, name: &str) -> Result<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let symbol = self.symbol(name)?;
        // SAFETY: the caller says that it is a function of this type; the library is never unloaded.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&symbol) })
    }

    /// The value of the `static` of type `u64` named `name`, if there is one.
    ///
    /// # Safety
    ///
    /// The item with this name must be a `static` of this type that nobody changes.
    pub unsafe fn number(self, name: &str) -> Option<u64> {
        let symbol = self.symbol(name).ok()?;
        // SAFETY: the caller guarantees the type; the library is never unloaded.
        Some(unsafe { *symbol.cast::<u64>() })
    }

    fn symbol(self, name: &str) -> Result<*mut c_void> {
        let name = CString::new(name).map_err(Error::other)?;
        // SAFETY: the library is loaded, and the string ends in zero.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if symbol.is_null() { Err(last_error()) } else { Ok(symbol) }
    }
}

fn last_error() -> Error {
    // SAFETY: the text belongs to this thread until its next call of the loader.
    let text = unsafe {
        let text = libc::dlerror();
        if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Error::other(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_loaded_is_named() {
        let error = Object::open("/nonexistent/library.so").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/library.so"), "{error}");
        assert!(Object::open("a\0b").is_err());
    }

    #[test]
    fn a_symbol_that_is_not_there_is_an_error() {
        let library = Object::open("libc.so.6").unwrap();
        // SAFETY: this is the type of `abs` in C.
        let abs: extern "C" fn(i32) -> i32 = unsafe { library.function("abs") }.unwrap();
        assert_eq!(abs(-3), 3);
        // SAFETY: the symbol does not exist, so nothing is read.
        assert_eq!(unsafe { library.number("no_such_symbol") }, None);
    }
}
