//! Translates the names that rustc writes into the names that people use.

/// rustc writes the name of the dynamic library's crate; cells call it by the library's name.
pub const BUILT_AS: &str = "wavemesh_dylib::";
pub const CALLED: &str = "wavemesh::";

/// The crate of the notebook's items, and of each cell. A program sees the name: `module_path!()`, `type_name`, the target of a log line.
pub const OWN_CRATE: &str = "this_notebook";

/// The names of the notebook's own items in the path of a type.
pub fn own_names(ty: &str) -> impl Iterator<Item = &str> {
    let paths = ty.split("this_notebook::").skip(1);
    paths.flat_map(|path| {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
        path[..end].split("::")
    })
}

/// The last name of the path with which a text starts.
pub fn last_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    text[..end].rsplit("::").next().unwrap_or_default()
}

/// A text of rustc with the names that people use.
pub fn plain_names(text: &str) -> String {
    text.replace(BUILT_AS, CALLED).replace("this_notebook::", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notebooks_own_names_are_found_in_a_type() {
        let ty = "std::collections::HashMap<this_notebook::geo::Point, std::vec::Vec<this_notebook::Mesh<f32>>>";
        assert_eq!(own_names(ty).collect::<Vec<_>>(), ["geo", "Point", "Mesh"]);
        assert_eq!(last_name("std::ops::Fn(i32) -> i32"), "Fn");
        assert_eq!(plain_names("wavemesh_dylib::Mesh for this_notebook::P"), "wavemesh::Mesh for P");
    }
}
