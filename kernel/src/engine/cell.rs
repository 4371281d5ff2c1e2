//! Takes the Rust of a cell apart into items and statements.
//!
//! Items go to the notebook's definitions ([`super::definitions`]); statements become the body of a function ([`super::body`]).

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use ra_ap_syntax::ast::{self, HasName};
use ra_ap_syntax::{AstNode, Edition, NodeOrToken, SourceFile, SyntaxNode};

use super::built::{Built, Edit};
use super::grammar::program::{self, Program};
use super::items::{self, Item, Origin};
use super::ways_out::{is_way_out, leaves};

/// A cell that was run, or a file that a cell brought in (with the files that it declares); reports need it to name lines.
#[derive(Debug)]
pub struct Run {
    /// The cell's number, as in `In [3]`.
    pub number: u32,
    /// The texts of all pages, one after the other.
    pub source: String,
    /// The cell or the file first, then the files that it declares.
    pub pages: Vec<Page>,
    built: Mutex<Texts>,
}

/// One text of a run: the cell's, or a file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What reports call it: `In [3]`, or the name of a file.
    pub name: String,
    /// The name of its file for the compiler, which no other page has. `file!()` returns it: `In [3]`.
    pub label: String,
    /// Its range in the source of its run.
    pub range: Range<usize>,
}

/// What was last built from a run for the compiler.
#[derive(Debug, Default)]
struct Texts {
    body: Option<Arc<Built>>,
    /// The items, one text for each page.
    items: Vec<Arc<Built>>,
}

/// Which of the two texts of a page is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Body,
    Items,
}

impl Run {
    /// A run of `source`, which consists of these pages.
    pub fn new(number: u32, pages: Vec<Page>, source: &str) -> Run {
        Run { number, pages, source: source.to_owned(), built: Mutex::default() }
    }

    /// The label of the first page: the name of the cell's file for the compiler.
    pub fn label(&self) -> &str {
        self.pages.first().map_or("", |page| &page.label)
    }

    /// What was built from a page for the compiler.
    pub fn built(&self, part: Part, page: usize) -> Option<Arc<Built>> {
        let texts = self.texts();
        match part {
            Part::Body => texts.body.clone().filter(|_| page == 0),
            Part::Items => texts.items.get(page).cloned(),
        }
    }

    /// Remembers what was built from the cell's statements.
    pub fn set_body(&self, built: Built) {
        self.texts().body = Some(Arc::new(built));
    }

    /// Remembers what was built from the items of each page.
    pub fn set_items(&self, built: &[Built]) {
        self.texts().items = built.iter().cloned().map(Arc::new).collect();
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.built.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The run and the page from which the compiler's `file` was built. If several labels fit, as `round.rs` and `shapes/round.rs` may, the
/// longest one counts.
pub fn page_of<'a>(runs: &'a [Arc<Run>], file: &str) -> Option<(&'a Arc<Run>, usize)> {
    let pages = runs.iter().flat_map(|run| run.pages.iter().enumerate().map(move |(index, page)| (run, index, page)));
    let known = pages.filter(|(_, _, page)| Path::new(file).ends_with(&page.label));
    known.max_by_key(|(_, _, page)| page.label.len()).map(|(run, index, _)| (run, index))
}

/// A cell, taken apart.
#[derive(Debug, Default)]
pub struct Cell {
    /// The items that it defines.
    pub items: Vec<Item>,
    /// Files that it brings in, which also define items.
    pub files: Vec<items::File>,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
    /// The variables that it binds, in order.
    pub bindings: Vec<Binding>,
    /// Words that occur in it before it binds a variable of that name: what it may need from earlier cells.
    pub wanted: HashSet<String>,
    /// Whether it waits for a future outside functions, closures and `async` blocks.
    pub awaits: bool,
    /// Whether it names `tokio`, the runtime behind `.await`, which needs no `:dep`.
    pub names_runtime: bool,
}

/// A piece of a cell that does something.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its range in the cell.
    pub range: Range<usize>,
    pub edits: Vec<Edit>,
    /// Whether it is an expression whose value is shown at the end of the cell.
    pub shown: bool,
    /// Variables to which it gives a new value.
    pub assigned: HashSet<String>,
}

/// A variable that the cell binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub name: String,
    pub mutable: bool,
    /// The statement after which it has a value.
    pub statement: usize,
    /// Only rustc can tell whether this variable exists: a macro that was given the name may bind it.
    pub supposed: bool,
    /// Whether it is a closure, whose type has no name.
    pub closure: bool,
}

impl Cell {
    /// Takes a cell apart. In `source`, everything that is not Rust must be blank. Files that it names are looked for in `folder`; `rules`
    /// returns the text of a macro of the notebook.
    pub fn parse(source: &str, folder: &Path, rules: &dyn Fn(&str) -> Option<String>) -> Cell {
        let mut cell = Cell::default();
        if source.trim().is_empty() {
            return cell;
        }
        let text = format!("{PRELUDE}{source}\n}}");
        let parsed = SourceFile::parse(&text, Edition::Edition2024);
        let shift = -isize::try_from(PRELUDE.len()).unwrap_or_default();
        let origin = Origin { source, shift, folder };
        if !parsed.errors().is_empty() {
            // rustc explains the error better. If it accepts the code, the cell runs as it is.
            cell.wanted = words(source).map(str::to_owned).collect();
            // The block makes rustc report that something is missing before the brace, as in a function.
            let range = source.len() - source.trim_start().len()..source.len();
            cell.statements.push(Statement {
                edits: vec![Edit::insert(range.start, "let _ = { "), Edit::insert(range.end, "\n};")],
                range,
                shown: false,
                assigned: HashSet::new(),
            });
            return cell;
        }
        let Some(list) = function_body(&parsed.syntax_node()) else { return cell };
        let paths = list.descendants().filter_map(ast::Path::cast);
        cell.names_runtime =
            paths.filter_map(|path| path.first_segment()).any(|first| first.syntax().text() == "tokio");
        let nodes: Vec<SyntaxNode> = list.children().collect();
        // Macros that the cell itself defines are known too.
        let own: Vec<(String, String)> = nodes
            .iter()
            .filter_map(|node| {
                Some((ast::MacroRules::cast(node.clone())?.name()?.text().to_string(), node.text().to_string()))
            })
            .collect();
        let rules = |name: &str| {
            let found = own.iter().rev().find(|(known, _)| known == name);
            found.map(|(_, text)| text.clone()).or_else(|| rules(name))
        };
        let last = nodes.len().saturating_sub(1);
        let mut program = Program::default();
        for (index, node) in nodes.iter().enumerate() {
            if let Some(attribute) = ast::Attr::cast(node.clone()) {
                program.extend(&program::of_inner_attribute(&attribute));
                continue;
            }
            let call = macro_call(node);
            let files = call.as_ref().map_or_else(Vec::new, |call| items::included(call, folder));
            let files = if files.is_empty() { items::module(node, &origin).into_iter().collect() } else { files };
            if !files.is_empty() {
                cell.files.extend(files);
                continue;
            }
            let found = items::items_of(node, &origin);
            if !found.is_empty() {
                cell.items.extend(found);
                continue;
            }
            if call.as_ref().is_some_and(|call| items::makes_items(call, &rules)) {
                cell.items.extend(items::items_of_macro(node, &origin));
                continue;
            }
            let is_value = index == last && ast::Expr::can_cast(node.kind());
            cell.add_statement(node, &origin, is_value && !is_way_out(node), &rules);
            if let Some(way_out) = cell.statements.last_mut().filter(|_| is_value && is_way_out(node)) {
                way_out.edits.push(Edit::insert(way_out.range.end, ";"));
            }
            if let Some(call) = call {
                cell.suppose_bindings(&call, &rules);
            }
        }
        cell.items.iter().for_each(|item| program.extend(&item.program));
        let of_files = cell.files.iter().flat_map(|file| &file.items);
        of_files.for_each(|item| program.extend(&Program { main: None, ..item.program.clone() }));
        let calls_main = |statement: &Statement| words(&source[statement.range.clone()]).any(|word| word == "main");
        if cell.statements.iter().any(calls_main) {
            program.main = None;
        }
        cell.run_program(&program, source);
        cell
    }

    /// Makes the cell's code run many times, to time it. Each run has its own bindings.
    pub fn repeat(&mut self, opt_level: &str) {
        self.bindings.clear();
        if let Some(first) = self.statements.first_mut() {
            let open = format!("::wavemesh_cell::timing::repeat({opt_level:?}, || {{");
            first.edits.insert(0, Edit::insert(first.range.start, open));
        }
        if let Some(last) = self.statements.last_mut() {
            last.edits.push(Edit::insert(last.range.end, "});"));
            last.shown = false;
        }
    }

    /// Runs a program after the statements of the cell.
    pub fn run_program(&mut self, program: &Program, source: &str) {
        if !program.is_empty() {
            self.awaits |= program.waits();
            self.statements.push(Statement {
                range: source.len()..source.len(),
                edits: vec![Edit::insert(source.len(), program.call())],
                shown: false,
                assigned: HashSet::new(),
            });
        }
    }

    fn add_statement(
        &mut self,
        node: &SyntaxNode,
        origin: &Origin,
        shown: bool,
        rules: &dyn Fn(&str) -> Option<String>,
    ) {
        let range = origin.range(node);
        let text = &origin.source[range.clone()];
        let index = self.statements.len();
        let bound_before = self.bindings.len();
        let assigned = assigned(node);
        for name in &assigned {
            // `let late;` counts as bound where it gets its value.
            for binding in
                self.bindings.iter_mut().filter(|binding| binding.name == *name && binding.statement == usize::MAX)
            {
                binding.statement = index;
            }
        }
        if let Some(statement) = ast::LetStmt::cast(node.clone()) {
            self.bind(&statement, index);
        }
        self.note_wanted(text, bound_before);
        self.awaits |= awaits(node);
        let mut edits = items::absolute_includes(node, origin);
        edits.extend(leaves(node, origin, rules));
        edits.sort_by_key(|edit| edit.range.start);
        self.statements.push(Statement { range, edits, shown, assigned });
    }

    fn bind(&mut self, statement: &ast::LetStmt, index: usize) {
        let Some(pattern) = statement.pat() else { return };
        let has_value = statement.initializer().is_some();
        for ident in pattern.syntax().descendants().filter_map(ast::IdentPat::cast) {
            let Some(name) = ident.name() else { continue };
            let name = name.text().to_string();
            // A name inside a pattern may be that of a constant or a variant.
            let alone = ident.syntax() == pattern.syntax();
            let supposed = !alone && name.starts_with(char::is_uppercase);
            if ident.ref_token().is_some() {
                continue;
            }
            self.bindings.push(Binding {
                name,
                mutable: ident.mut_token().is_some(),
                statement: if has_value { index } else { usize::MAX },
                supposed,
                closure: alone
                    && statement.ty().is_none()
                    && matches!(statement.initializer(), Some(ast::Expr::ClosureExpr(_))),
            });
        }
    }

    /// Notes the names that a macro is given: it may bind variables with them.
    fn suppose_bindings(&mut self, call: &ast::MacroCall, rules: &dyn Fn(&str) -> Option<String>) {
        let name = called(call);
        if !rules(&name).is_some_and(|text| items::may_bind(&text)) {
            return;
        }
        let Some(tree) = call.token_tree() else { return };
        let statement = self.statements.len().saturating_sub(1);
        let tokens = tree.syntax().descendants_with_tokens().filter_map(NodeOrToken::into_token);
        for token in tokens.filter(|token| token.kind() == ra_ap_syntax::SyntaxKind::IDENT) {
            let name = token.text().to_owned();
            if !self.bindings.iter().any(|binding| binding.name == name && binding.statement == statement) {
                self.bindings.push(Binding { name, mutable: true, statement, supposed: true, closure: false });
            }
        }
    }

    /// Notes what a statement may need from earlier cells. A name that occurs only where the statement binds it is not needed, neither
    /// there nor later: the earlier variable of that name stays where it is.
    fn note_wanted(&mut self, statement: &str, bound_before: usize) {
        for word in words(statement) {
            let bound = |binding: &Binding| binding.name.trim_start_matches("r#") == word;
            let here = self.bindings[bound_before..].iter().any(bound);
            let once = words(statement).filter(|other| *other == word).count() == 1;
            if !(self.bindings[..bound_before].iter().any(bound) || here && once) {
                self.wanted.insert(word.to_owned());
            }
        }
    }

    /// Whether the cell may use the variable `name` of an earlier cell.
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.contains(name.trim_start_matches("r#"))
    }

    /// The first statement that gives the variable `name` a value, unless an earlier statement mentions the variable.
    pub fn starts_with_value(&self, name: &str, source: &str) -> Option<usize> {
        let word = name.trim_start_matches("r#");
        let first = self
            .statements
            .iter()
            .position(|statement| words(&source[statement.range.clone()]).any(|other| other == word))?;
        self.statements[first].assigned.contains(name).then_some(first)
    }
}

/// Variables to which a statement gives a whole new value, anywhere inside it.
fn assigned(node: &SyntaxNode) -> HashSet<String> {
    let mut names = HashSet::new();
    for expression in node.descendants().filter_map(ast::BinExpr::cast) {
        if !matches!(expression.op_kind(), Some(ast::BinaryOp::Assignment { op: None })) {
            continue;
        }
        let Some(left) = expression.lhs() else { continue };
        let paths: Vec<ast::PathExpr> = match &left {
            ast::Expr::PathExpr(path) => vec![path.clone()],
            ast::Expr::TupleExpr(_) | ast::Expr::ArrayExpr(_) => {
                left.syntax().descendants().filter_map(ast::PathExpr::cast).collect()
            }
            _ => continue,
        };
        names.extend(paths.into_iter().map(|path| path.syntax().text().to_string()));
    }
    names
}

/// Whether a piece of a statement runs in a function other than the cell's: in a closure, a function, or an `async` block.
pub(super) fn in_another(inner: &SyntaxNode, statement: &SyntaxNode) -> bool {
    let depth = inner.ancestors().take_while(|outer| outer != statement).count();
    inner.ancestors().take(depth + 1).skip(1).any(|outer| {
        ast::ClosureExpr::can_cast(outer.kind())
            || ast::Fn::can_cast(outer.kind())
            || ast::BlockExpr::cast(outer).is_some_and(|block| block.async_token().is_some())
    })
}

/// Macros of async crates that wait for futures in place.
const WAITING: [&str; 4] = ["join", "try_join", "select", "select_biased"];

/// Whether a statement waits for a future itself.
pub fn awaits(node: &SyntaxNode) -> bool {
    let in_tokens = |tree: ast::TokenTree| tokens_wait(tree.syntax());
    node.descendants().any(|inner| {
        let waits = ast::AwaitExpr::can_cast(inner.kind())
            || ast::TokenTree::cast(inner.clone()).is_some_and(in_tokens)
            || ast::MacroCall::cast(inner.clone()).is_some_and(|call| WAITING.contains(&&*called(&call)));
        waits && !in_another(&inner, node)
    })
}

/// The last name of a macro that is called.
pub(super) fn called(call: &ast::MacroCall) -> String {
    let path = call.path().map(|path| items::compact(path.syntax())).unwrap_or_default();
    path.rsplit("::").next().unwrap_or_default().to_owned()
}

/// Whether the tokens of a macro call contain an `.await` that is not inside another future.
pub(super) fn tokens_wait(node: &SyntaxNode) -> bool {
    let has = |word: &str| {
        let mut tokens = node.descendants_with_tokens().filter_map(NodeOrToken::into_token);
        tokens.any(|token| token.text() == word)
    };
    has("await") && !has("async")
}

/// The macro call that a statement consists of.
pub(super) fn macro_call(node: &SyntaxNode) -> Option<ast::MacroCall> {
    let expression = match ast::ExprStmt::cast(node.clone()) {
        Some(statement) => statement.expr()?.syntax().clone(),
        None => node.clone(),
    };
    match ast::MacroExpr::cast(expression.clone()) {
        Some(call) => call.macro_call(),
        None => ast::MacroCall::cast(expression),
    }
}

const PRELUDE: &str = "fn f(){";

fn function_body(file: &SyntaxNode) -> Option<SyntaxNode> {
    let function = file.children().next().and_then(ast::Fn::cast)?;
    Some(function.body()?.stmt_list()?.syntax().clone())
}

/// The statements of `code`, each with its start and its text up to the start of the next; the offsets of the node count from [`PRELUDE`].
pub fn split_statements(code: &str) -> Vec<(usize, &str, SyntaxNode)> {
    let parsed = SourceFile::parse(&format!("{PRELUDE}{code}\n}}"), Edition::Edition2024);
    let Some(list) = function_body(&parsed.syntax_node()) else { return Vec::new() };
    let nodes: Vec<SyntaxNode> = list.children().collect();
    let mut pieces = Vec::new();
    let mut start = 0;
    for (index, node) in nodes.iter().enumerate() {
        let end = match nodes.get(index + 1) {
            Some(next) => usize::from(next.text_range().start()) - PRELUDE.len(),
            None => code.len(),
        };
        let end = end.min(code.len());
        if start == end {
            break;
        }
        pieces.push((start, &code[start..end], node.clone()));
        start = end;
    }
    pieces
}

/// The words of some code, with those in comments and in strings (formats name variables).
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Cell {
        let rules =
            |name: &str| (name == "bind").then(|| "macro_rules! bind { ($n:ident) => { let $n = 1; } }".to_owned());
        Cell::parse(source, Path::new("/"), &rules)
    }

    fn bound(source: &str) -> Vec<(String, usize)> {
        parse(source).bindings.into_iter().map(|binding| (binding.name, binding.statement)).collect()
    }

    #[test]
    fn variables_are_told_with_the_statement_that_gives_them_a_value() {
        let own = |expected: &[(&str, usize)]| -> Vec<(String, usize)> {
            expected.iter().map(|(name, statement)| ((*name).to_owned(), *statement)).collect()
        };
        for (source, expected) in [
            ("let x = 1; let (a, mut b): (u8, u8) = (1, 2);\nx", &[("x", 0), ("a", 1), ("b", 1)][..]),
            ("let late; 1; if true { late = 1 } else { late = 2 }", &[("late", 2)]),
            ("let N = 1; let Some(M) = Some(2) else { panic!() };", &[("N", 0), ("M", 1)]),
            ("struct S; let s = S;", &[("s", 0)]),
            ("1; bind!(total);", &[("total", 1)]),
        ] {
            assert_eq!(bound(source), own(expected), "{source}");
        }
    }

    #[test]
    fn items_are_told_from_statements() {
        let cell = parse(
            "use std::fmt;\nlet x = 1;\nmacro_rules! mk { ($n:ident) => { fn $n() {} } }\nmk!(one);\nprintln!();\nx",
        );
        let keys: Vec<&str> = cell.items.iter().map(|item| item.key.as_str()).collect();
        assert_eq!(keys, ["fmt", "mk!", "mk!(one);"]);
        assert_eq!(cell.statements.len(), 3);
        assert!(cell.statements[2].shown && !cell.statements[1].shown);
    }

    #[test]
    fn a_cell_that_waits_is_told_from_one_that_makes_futures() {
        for (source, waits) in [
            ("f().await", true),
            ("println!(\"{}\", f().await);", true),
            ("ensure!(f().await, \"async\");", true),
            ("bail!(\"await\");", false),
            ("let h = spawn(async { f().await });", false),
            ("let h = spawn(async move { 5 }).await?;", true),
            ("let f = || async { g().await };", false),
            ("async fn f() { g().await }", false),
        ] {
            assert_eq!(parse(source).awaits, waits, "{source}");
        }
    }

    #[test]
    fn a_cell_wants_what_it_names_before_it_binds_it() {
        let wants = |source: &str, name: &str| parse(source).wants(name);
        assert!(wants("println!(\"{x}\")", "x"), "a format names a variable");
        assert!(!wants("max + xy", "x"), "a part of another word is none");
        assert!(wants("let x = x + 1;", "x"));
        assert!(wants("let y = x; let x = 2;", "x"));
        assert!(!wants("let x = 1; x + x", "x"));
        assert!(!wants("let (a, mut x): (u8, u8) = (1, 2); x", "x"));
        assert!(wants("{ let x = 1; } x", "x"), "what a block binds ends with it");
        assert!(wants("r#type + 1", "r#type"));
    }

    #[test]
    fn a_variable_that_was_moved_away_may_get_a_value_again() {
        let first = |source: &str| parse(source).starts_with_value("s", source);
        assert_eq!(first("1; s = 2; s"), Some(1));
        assert_eq!(first("f(s); s = 2;"), None);
    }
}
