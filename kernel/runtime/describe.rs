//! What `:vars` shows about a variable: the bytes that it holds on the heap, and its shape.

use std::any::Any;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Describes values of the library's types: bytes on the heap, and shape.
type Describe = fn(&dyn Any) -> Option<(usize, String)>;

static LIBRARY: OnceLock<Describe> = OnceLock::new();

/// Sets the function that describes the library's types.
///
/// # Safety
///
/// `describe` must be a [`Describe`], compiled with the same compiler as this.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wavemesh_cell_describe_with(describe: *const c_void) {
    // SAFETY: the caller guarantees the type.
    let _ = LIBRARY.set(unsafe { std::mem::transmute::<*const c_void, Describe>(describe) });
}

/// The bytes that a value holds on the heap and its shape, for types with plain contents; 0 and an empty text for others.
pub(crate) fn describe(value: &dyn Any) -> (usize, String) {
    macro_rules! vectors {
        ($($element:ty)*) => {$(
            if let Some(vector) = value.downcast_ref::<Vec<$element>>() {
                return (vector.capacity() * size_of::<$element>(), vector.len().to_string());
            }
        )*};
    }
    macro_rules! rows {
        ($($element:ty)*) => {$(
            if let Some(rows) = value.downcast_ref::<Vec<Vec<$element>>>() {
                let of_rows: usize = rows.iter().map(|row| row.capacity() * size_of::<$element>()).sum();
                let widths = rows.first().map_or(0, Vec::len);
                let even = rows.iter().all(|row| row.len() == widths);
                let shape = if even { format!("{} × {widths}", rows.len()) } else { format!("{} rows", rows.len()) };
                return (rows.capacity() * size_of::<Vec<$element>>() + of_rows, shape);
            }
        )*};
    }
    vectors!(f32 f64 u8 i8 u16 i16 u32 i32 u64 i64 usize isize bool char [f32; 2] [f32; 3] [f64; 3] [u32; 3] [i32; 3] [i32; 4] (f64, f64) (f32, f32));
    rows!(f32 f64 u8 i32 u32 i64 u64 usize bool);
    if let Some(text) = value.downcast_ref::<String>() {
        return (text.capacity(), String::new());
    }
    if let Some(texts) = value.downcast_ref::<Vec<String>>() {
        let of_texts: usize = texts.iter().map(|text| text.capacity() + size_of::<String>()).sum();
        return (of_texts, texts.len().to_string());
    }
    LIBRARY.get().and_then(|describe| describe(value)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_its_length_and_even_rows_a_shape() {
        assert_eq!(describe(&vec![0f32; 10]), (40, "10".to_owned()));
        assert_eq!(describe(&vec![vec![0u8; 3]; 2]), (2 * size_of::<Vec<u8>>() + 6, "2 × 3".to_owned()));
        assert_eq!(describe(&vec![vec![1.0, 2.0], vec![1.0]]).1, "2 rows");
        assert_eq!(describe(&vec!["a".to_owned()]).1, "1");
        assert_eq!(describe(&7u8), (0, String::new()));
    }
}
