//! Whole programs in a cell: `fn main` and tests. cargo would run them; in a cell nobody calls them.
//!
//! If a cell defines `main` and does not call it, `main` runs; if a cell defines tests, they run. Attributes for cargo's test harness and
//! for other runtimes (`#[test]`, `#[cfg(test)]`, `#[tokio::main]`) are removed: rustc would leave the item out, or the program would start
//! a second runtime.

use ra_ap_syntax::ast::{self, HasModuleItem, HasName, HasVisibility};
use ra_ap_syntax::{AstNode, AstToken, SyntaxNode};

use crate::engine::built::Edit;
use crate::engine::items::{Origin, compact, start_after_attributes};

/// The parts of items that cargo would run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub main: Option<Main>,
    pub tests: Vec<Test>,
    /// Notes for the user about what does not run here.
    pub notes: Vec<String>,
}

/// `fn main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Main {
    /// Whether it is a future, which the notebook's runtime must run.
    waits: bool,
    returns: Returns,
}

/// What `main` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returns {
    /// A `Result`, whose error ends the cell with that error.
    Result,
    /// An `ExitCode`; a failure code ends the cell with an error.
    ExitCode,
    Other,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its path from the root of the notebook's items: `tests::adds`.
    pub path: String,
    /// Whether it is a future, which the notebook's runtime must run.
    waits: bool,
    /// The reason for which it does not run (may be empty), if it is ignored.
    ignored: Option<String>,
    /// The text expected in its panic (may be empty), if a panic is expected.
    should_panic: Option<String>,
}

impl Program {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.main.is_none() && self.tests.is_empty() && self.notes.is_empty()
    }

    /// Whether any of it is a future.
    pub fn waits(&self) -> bool {
        self.main.is_some_and(|main| main.waits) || self.tests.iter().any(|test| test.waits)
    }

    /// Adds the program of another item.
    pub fn extend(&mut self, other: &Program) {
        self.main = other.main.or(self.main);
        self.tests.extend_from_slice(&other.tests);
        self.notes.extend_from_slice(&other.notes);
    }

    /// The code that runs it, to be put at the end of a cell.
    pub fn call(&self) -> String {
        let mut code = String::new();
        for note in &self.notes {
            code.push_str(&format!("::std::eprintln!(\"note: {{}}\", {note:?}); "));
        }
        if let Some(Main { waits, returns }) = self.main {
            let call = if waits { "::this_notebook::main().await" } else { "::this_notebook::main()" };
            let call = match returns {
                Returns::Result => format!("{call}?"),
                Returns::ExitCode => format!("::wavemesh_cell::testing::exited({call})?"),
                Returns::Other => call.to_owned(),
            };
            code.push_str(&format!(
                "::std::eprintln!(\"note: the cell defines `main`, so it runs.\"); let _ = {call}; "
            ));
        }
        if self.tests.is_empty() {
            return code;
        }
        code.push_str(&format!("let mut __wm_tests = ::wavemesh_cell::testing::Tests::begin({}); ", self.tests.len()));
        for Test { path, waits, ignored, should_panic } in &self.tests {
            let kind = format!("{path:?}, {ignored:?}, {should_panic:?}");
            code.push_str(&if *waits {
                format!(
                    "__wm_tests.wait_for({kind}, async {{ ::wavemesh_cell::testing::ended(::this_notebook::{path}().await) }}).await; "
                )
            } else {
                format!("__wm_tests.run({kind}, || ::wavemesh_cell::testing::ended(::this_notebook::{path}())); ")
            });
        }
        code.push_str("__wm_tests.end()?; ");
        code
    }
}

/// The program for an attribute of the whole cell (`#![…]`): it runs nothing, but has a note unless the attribute only turns lints on and
/// off.
pub fn of_inner_attribute(attribute: &ast::Attr) -> Program {
    let text = compact(attribute.syntax());
    let of_lints =
        ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| text.starts_with(&format!("#![{lint}(")));
    let note = || format!("`{text}` has no effect in a cell: cells form one crate, whose attributes the kernel sets.");
    Program { notes: (!of_lints).then(note).into_iter().collect(), ..Program::default() }
}

/// What cargo would run of an item, and the edits that let it run here.
pub fn of(node: &SyntaxNode, origin: &Origin) -> (Program, Vec<Edit>) {
    let (mut program, mut edits) = (Program::default(), Vec::new());
    if let Some(function) = ast::Fn::cast(node.clone())
        && function.name().is_some_and(|name| name.text() == "main")
        && function.param_list().is_none_or(|list| list.params().next().is_none() && list.self_param().is_none())
    {
        program.main = Some(main(&function, origin, &mut edits));
    } else {
        collect(node, "", origin, &mut program, &mut edits);
    }
    (program, edits)
}

fn main(function: &ast::Fn, origin: &Origin, edits: &mut Vec<Edit>) -> Main {
    let mut waits = function.async_token().is_some();
    for (attribute, name) in attributes(function.syntax()) {
        if name == "tokio::main" {
            edits.push(Edit::replace(origin.range(attribute.syntax()), ""));
        } else if name.ends_with("::main") {
            // An attribute of another runtime: without `async`, what is left is no future.
            waits = false;
        }
    }
    let returned = function.ret_type().and_then(|returned| returned.ty()).map(|ty| compact(ty.syntax()));
    let returned = returned.unwrap_or_default();
    let name = returned.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or_default();
    let returns = match name {
        "Result" => Returns::Result,
        "ExitCode" => Returns::ExitCode,
        _ => Returns::Other,
    };
    Main { waits, returns }
}

/// Adds the tests of an item below `path`.
fn collect(node: &SyntaxNode, path: &str, origin: &Origin, program: &mut Program, edits: &mut Vec<Edit>) {
    for (attribute, name) in attributes(node) {
        if name == "cfg" && compact(attribute.syntax()) == "#[cfg(test)]" {
            edits.push(Edit::replace(origin.range(attribute.syntax()), ""));
        }
    }
    if let Some(module) = ast::Module::cast(node.clone()) {
        let (Some(name), Some(list)) = (module.name(), module.item_list()) else { return };
        let before = program.tests.len();
        for item in list.items() {
            collect(item.syntax(), &format!("{path}{}::", name.text()), origin, program, edits);
        }
        // Tests are called from another crate.
        if !path.is_empty() && before != program.tests.len() {
            publish(node, module.visibility(), origin, edits);
        }
    } else if let Some(function) = ast::Fn::cast(node.clone()) {
        test(&function, path, origin, program, edits);
    }
}

fn test(function: &ast::Fn, path: &str, origin: &Origin, program: &mut Program, edits: &mut Vec<Edit>) {
    let Some(name) = function.name() else { return };
    let mut test = Test { path: format!("{path}{}", name.text()), waits: false, ignored: None, should_panic: None };
    let found: Vec<(ast::Attr, String)> = attributes(function.syntax()).collect();
    let is_harness = |name: &str| name.rsplit("::").next() == Some("test") || name == "rstest" || name == "test_case";
    let Some((_, harness)) = found.iter().find(|(_, name)| is_harness(name)) else { return };
    let is_ours = ["test", "core::prelude::v1::test", "std::prelude::v1::test", "tokio::test"];
    if !is_ours.contains(&harness.as_str()) {
        program.notes.push(format!(
            "the test `{}` does not run here: `#[{harness}]` needs cargo. `:export DIR` writes a project in which `cargo test` runs it.",
            test.path
        ));
        return;
    }
    test.waits = function.async_token().is_some();
    for (attribute, name) in &found {
        match name.as_str() {
            "ignore" => test.ignored = Some(text_in(attribute)),
            "should_panic" => test.should_panic = Some(text_in(attribute)),
            name if is_ours.contains(&name) => {}
            _ => continue,
        }
        edits.push(Edit::replace(origin.range(attribute.syntax()), ""));
    }
    if !path.is_empty() {
        publish(function.syntax(), function.visibility(), origin, edits);
    }
    program.tests.push(test);
}

fn publish(node: &SyntaxNode, visibility: Option<ast::Visibility>, origin: &Origin, edits: &mut Vec<Edit>) {
    if visibility.is_none() {
        edits.push(Edit::insert(origin.at(start_after_attributes(node)), "pub "));
    }
}

/// The outer attributes of an item, with their paths.
fn attributes(node: &SyntaxNode) -> impl Iterator<Item = (ast::Attr, String)> {
    node.children().filter_map(ast::Attr::cast).filter_map(|attribute| {
        let text = compact(attribute.syntax());
        let path = text.strip_prefix("#[")?.split(['(', '=', ']']).next()?.to_owned();
        Some((attribute, path))
    })
}

/// The text in `#[ignore = "…"]` and `#[should_panic(expected = "…")]`.
fn text_in(attribute: &ast::Attr) -> String {
    let tokens = attribute.syntax().descendants_with_tokens().filter_map(ra_ap_syntax::NodeOrToken::into_token);
    let mut strings = tokens.filter_map(ast::String::cast).filter_map(|text| Some(text.value().ok()?.into_owned()));
    strings.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::built::Built;
    use crate::engine::cell::Cell;

    /// The code that rustc gets for the items, and what runs.
    fn told(source: &str) -> (String, Program) {
        let cell = Cell::parse(source, Path::new("/"), &|_| None);
        let (mut built, mut program) = (Built::default(), Program::default());
        for item in &cell.items {
            built.push(source, item.range.clone(), &item.edits);
            program.extend(&item.program);
        }
        (built.text, program)
    }

    fn test(path: &str) -> Test {
        Test { path: path.to_owned(), waits: false, ignored: None, should_panic: None }
    }

    #[test]
    fn main_runs_as_its_signature_says() {
        for (source, waits, returns, built) in [
            ("fn main() {}", false, Returns::Other, "pub fn main() {}"),
            (
                "fn main() -> std::io::Result<()> { Ok(()) }",
                false,
                Returns::Result,
                "pub fn main() -> std::io::Result<()> { Ok(()) }",
            ),
            (
                "#[tokio::main(flavor = \"current_thread\")]\nasync fn main() {}",
                true,
                Returns::Other,
                "\npub async fn main() {}",
            ),
            (
                "#[actix_web::main]\nasync fn main() {}",
                false,
                Returns::Other,
                "#[actix_web::main]\npub async fn main() {}",
            ),
        ] {
            assert_eq!(
                told(source),
                (built.to_owned(), Program { main: Some(Main { waits, returns }), ..Program::default() })
            );
        }
        assert!(told("fn main(n: i32) {}").1.is_empty() && told("mod m { fn main() {} }").1.is_empty());
    }

    #[test]
    fn tests_are_found_wherever_they_stand_and_can_be_called() {
        let source = "#[test]\n#[should_panic(expected = \"no\")]\nfn one() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n    mod deep {\n        #[test]\n        #[ignore = \"slow\"]\n        fn two() {}\n    }\n    fn helper() {}\n}";
        let (built, program) = told(source);
        assert_eq!(
            built,
            "\n\npub fn one() {}\n\npub mod tests {\n    use super::*;\n    pub mod deep {\n        \n        \n        pub fn two() {}\n    }\n    fn helper() {}\n}"
        );
        let expected = [
            Test { should_panic: Some("no".into()), ..test("one") },
            Test { ignored: Some("slow".into()), ..test("tests::deep::two") },
        ];
        assert_eq!(program.tests, expected);
    }

    #[test]
    fn a_test_that_needs_a_harness_of_its_own_is_named() {
        let (built, program) = told("#[rstest]\nfn cases() {}");
        assert_eq!((built.as_str(), program.notes.len()), ("#[rstest]\npub fn cases() {}", 1));
        assert!(program.call().contains("`#[rstest]` needs cargo") && !program.call().contains("Tests::begin"));
    }

    #[test]
    fn futures_are_waited_for() {
        let program = told("#[tokio::test]\nasync fn late() -> Result<(), String> { Ok(()) }").1;
        assert!(program.waits() && program.call().contains("::this_notebook::late().await"), "{}", program.call());
    }
}
