//! Cursor positions that alone decide which names fit: within `#[derive(…)]`, and in the braces of a `use`.

/// Traits that are often derived.
pub const DERIVES: [&str; 11] =
    ["Clone", "Copy", "Debug", "Default", "Eq", "Hash", "Ord", "PartialEq", "PartialOrd", "Serialize", "Deserialize"];

/// The primitive types, which need no import.
pub const PRIMITIVES: [&str; 17] = [
    "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str", "u128", "u16", "u32", "u64", "u8",
    "usize",
];

/// Names of the standard prelude that have no documentation page of their own.
pub const PRELUDE: [&str; 4] = ["Some", "None", "Ok", "Err"];

/// Whether the text ends within the parentheses of `#[derive(…)]`.
pub fn in_derive(before: &str) -> bool {
    before.rfind("#[derive(").is_some_and(|at| !before[at..].contains(')'))
}

/// The path whose names fit when the text ends inside a `use`: `std::collections` for `use std::{fmt, collections::{HashMap, `.
pub fn path_of_use(before: &str) -> Option<String> {
    let statement = before.rsplit([';', '}']).find(|text| text.trim_start().starts_with("use "))?;
    // A closed `}` ends no `use`, so the statement reaches from its start to the end of the text.
    let statement = &before[before.rfind(statement)?..];
    let tree = statement.trim_start().strip_prefix("use ").filter(|tree| !tree.contains(';'))?;
    let mut open: Vec<String> = Vec::new();
    let mut path = String::new();
    for c in tree.chars().filter(|c| !c.is_whitespace()) {
        match c {
            '{' => open.push(path.clone()),
            '}' => path = open.pop()?,
            ',' => path = open.last()?.clone(),
            c => path.push(c),
        }
    }
    if open.is_empty() {
        return None;
    }
    Some(path.rsplit_once("::").map(|(path, _)| path.to_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_braces_of_a_use_is_one_below_their_path() {
        for (before, path) in [
            ("use std::{", Some("std")),
            ("let a = 1;\nuse std::collections::{HashMap, BTr", Some("std::collections")),
            ("use std::{fmt, collections::{HashMap}, io::{self, Wr", Some("std::io")),
            ("use std::{collections::{HashMap, HashSet}, fm", Some("std")),
            ("use {", Some("")),
            ("use std::fmt;\nlet b = {", None),
            ("use std::coll", None),
            ("fn f() {", None),
        ] {
            assert_eq!(path_of_use(before).as_deref(), path, "{before}");
        }
    }

    #[test]
    fn a_derive_is_open_until_its_parenthesis() {
        assert!(in_derive("#[derive(Debug, Cl") && in_derive("struct A;\n#[derive("));
        assert!(!in_derive("#[derive(Debug)]\nstruct A { x: Cl") && !in_derive("derive("));
    }
}
