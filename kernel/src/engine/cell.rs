//! The Rust of a cell before it goes to evcxr: its statements are told apart and adapted.
//!
//! Two things are added, both insertions, so that every byte keeps a place in what the user wrote:
//! - each variable gets a placeholder for its type ([`Placeholder`]), because evcxr must name the type and only rustc knows it;
//! - an expression that ends the cell is handed to `show!`, so that one build suffices whatever its type.

use std::collections::HashSet;

use ra_ap_syntax::ast::{self, HasName};
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxNode};

/// A cell, taken apart.
#[derive(Debug)]
pub struct Cell {
    /// What the user wrote, with spaces for commands and what else does not belong to it.
    pub source: String,
    /// The same with the insertions.
    pub rust: String,
    /// The statements of `rust`, in order.
    pub statements: Vec<Statement>,
    /// The variables that it binds, in order.
    pub placeholders: Vec<Placeholder>,
    /// Words that stand in it before it binds a variable of that name: what it may want of earlier cells.
    pub wanted: HashSet<String>,
    /// The items that it defines on which the layout of a type may rest.
    pub types: Vec<TypeItem>,
}

/// An item on which the layout of a type may rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeItem {
    pub name: String,
    /// Its text without what cannot change a layout: comments, spaces and derived traits.
    pub text: String,
}

impl TypeItem {
    fn of(node: &SyntaxNode) -> Option<TypeItem> {
        let name = match ast::Item::cast(node.clone())? {
            ast::Item::Struct(item) => item.name(),
            ast::Item::Enum(item) => item.name(),
            ast::Item::Union(item) => item.name(),
            ast::Item::TypeAlias(item) => item.name(),
            ast::Item::Trait(item) => item.name(),
            ast::Item::Const(item) => item.name(),
            ast::Item::Module(item) => item.name(),
            _ => None,
        }?;
        let derives =
            |node: &SyntaxNode| ast::Attr::can_cast(node.kind()) && node.text().to_string().starts_with("#[derive");
        let tokens = node.descendants_with_tokens().filter_map(|element| element.into_token());
        let told =
            tokens.filter(|token| !token.kind().is_trivia() && !token.parent_ancestors().any(|node| derives(&node)));
        let text: Vec<String> = told.map(|token| token.text().to_owned()).collect();
        Some(TypeItem { name: name.text().to_string(), text: text.join(" ") })
    }
}

/// A piece of the Rust part.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Where it starts in the source.
    pub start: usize,
    /// With insertions.
    pub text: String,
    /// Byte offset in `text` and length of each insertion.
    pub insertions: Vec<(usize, usize)>,
}

impl Statement {
    /// The place in the source of a byte of `text`; a byte that was inserted belongs where it was inserted.
    pub fn source_offset(&self, offset: usize) -> usize {
        let mut place = offset;
        for &(at, length) in &self.insertions {
            if offset >= at + length {
                place -= length;
            } else if offset > at {
                place -= offset - at;
            }
        }
        self.start + place
    }
}

/// A variable that the cell binds, and a name for its type until rustc has told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    pub marker: String,
    pub variable: String,
    pub mutable: bool,
}

impl Cell {
    /// Takes a cell apart. `number` makes its placeholders unlike those of every other cell; `show` is the path of the macro that
    /// shows a value, or `None` to show nothing.
    pub fn parse(source: &str, number: u64, show: Option<&str>) -> Cell {
        let mut cell = Cell {
            source: source.to_owned(),
            rust: String::new(),
            statements: Vec::new(),
            placeholders: Vec::new(),
            wanted: HashSet::new(),
            types: Vec::new(),
        };
        let pieces = split_statements(source);
        let last = pieces.len().saturating_sub(1);
        for (index, (from, text, node)) in pieces.into_iter().enumerate() {
            let (mut edits, mut again) = (Vec::new(), Vec::new());
            // What stands above the first statement is no part of it.
            let above = if index == 0 { text.len() - text.trim_start().len() } else { 0 };
            cell.rust.extend(text[..above].chars().filter(|&c| c == '\n'));
            let (from, text) = (from + above, &text[above..]);
            let bound_before = cell.placeholders.len();
            cell.types.extend(TypeItem::of(&node));
            if let Some(statement) = ast::LetStmt::cast(node.clone()) {
                cell.adapt_let(&statement, number, &mut edits, &mut again);
            } else if let (true, Some(show)) = (index == last, show)
                && ast::Expr::can_cast(node.kind())
            {
                let range = node.text_range();
                edits.push((usize::from(range.start()), format!("{show}!(")));
                edits.push((usize::from(range.end()), ");".to_owned()));
            }
            cell.note_wanted(text, bound_before);
            let edits: Vec<_> = edits.into_iter().map(|(at, new)| (at - from - PRELUDE.len(), new)).collect();
            let statement = insert(text, from, &edits);
            cell.rust.push_str(&statement.text);
            cell.statements.push(statement);
            // evcxr takes a statement that was added for one of its own. A comment may end the line before it.
            for again in again {
                let place = usize::from(node.text_range().end()) - PRELUDE.len();
                cell.rust.push('\n');
                cell.rust.push_str(&again);
                cell.statements.push(Statement { start: place, insertions: vec![(0, again.len())], text: again });
            }
            if !cell.rust.ends_with(char::is_whitespace) {
                cell.rust.push('\n');
            }
        }
        cell
    }

    fn adapt_let(
        &mut self,
        statement: &ast::LetStmt,
        number: u64,
        edits: &mut Vec<(usize, String)>,
        again: &mut Vec<String>,
    ) {
        let Some(pattern) = statement.pat() else { return };
        let mut new_marker = |variable: &str, mutable: bool| {
            let marker = format!("Wm{number}Type{}", self.placeholders.len());
            self.placeholders.push(Placeholder { marker: marker.clone(), variable: variable.to_owned(), mutable });
            marker
        };
        if let ast::Pat::IdentPat(ident) = &pattern
            && ident.pat().is_none()
            && ident.ref_token().is_none()
            && let Some(name) = ident.name()
            && (statement.ty().is_none() || statement.initializer().is_none())
        {
            let marker = new_marker(name.text(), ident.mut_token().is_some());
            if statement.ty().is_none() {
                edits.push((usize::from(pattern.syntax().text_range().end()), format!(": {marker}")));
            }
            return;
        }
        if statement.initializer().is_none() {
            return;
        }
        // A pattern, or a type that the user gave: bind each name once more, under a placeholder.
        for ident in pattern.syntax().descendants().filter_map(ast::IdentPat::cast) {
            let Some(name) = ident.name() else { continue };
            let name = name.text().to_string();
            // `None` in a pattern parses as a name; variables are written in lower case.
            if name.starts_with(char::is_uppercase) {
                continue;
            }
            let mutable = ident.mut_token().is_some();
            let marker = new_marker(&name, mutable);
            let mutable = if mutable { "mut " } else { "" };
            again.push(format!("let {mutable}{name}: {marker} = {name};"));
        }
    }

    /// Notes what a statement may want of earlier cells. A name that stands only where the statement binds it is not wanted, there and
    /// below: the earlier variable of that name stays where it is.
    fn note_wanted(&mut self, statement: &str, bound_before: usize) {
        for word in words(statement) {
            let bound = |placeholder: &Placeholder| placeholder.variable.trim_start_matches("r#") == word;
            let here = self.placeholders[bound_before..].iter().any(bound);
            let once = words(statement).filter(|other| *other == word).count() == 1;
            if !(self.placeholders[..bound_before].iter().any(bound) || here && once) {
                self.wanted.insert(word.to_owned());
            }
        }
    }

    /// Whether the cell may use the variable `name` of an earlier cell.
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.contains(name.trim_start_matches("r#"))
    }
}

const PRELUDE: &str = "fn f(){";

/// Statements with their place in `code`, each up to the start of the next, as evcxr splits them; the node's offsets count from
/// [`PRELUDE`].
pub fn split_statements(code: &str) -> Vec<(usize, &str, SyntaxNode)> {
    let parsed = SourceFile::parse(&format!("{PRELUDE}{code}\n}}"), Edition::Edition2024);
    let list = parsed.syntax_node().children().next().and_then(ast::Fn::cast).and_then(|f| f.body()?.stmt_list());
    let Some(list) = list else { return Vec::new() };
    let nodes: Vec<SyntaxNode> = list.syntax().children().collect();
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

fn insert(text: &str, start: usize, edits: &[(usize, String)]) -> Statement {
    let mut new = String::with_capacity(text.len() + 64);
    let mut insertions = Vec::new();
    let mut done = 0;
    for (at, addition) in edits {
        let at = (*at).min(text.len());
        new.push_str(&text[done..at]);
        insertions.push((new.len(), addition.len()));
        new.push_str(addition);
        done = at;
    }
    new.push_str(&text[done..]);
    Statement { start, text: new, insertions }
}

/// The words of a code, those in strings (where formats name variables) and comments included.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_get_placeholders_and_keep_their_place() {
        let source = "       \nlet x = 1; let (a, mut b): (u8, u8) = (1, 2);\nx";
        let cell = Cell::parse(source, 7, Some("show"));
        assert_eq!(
            cell.rust,
            "\nlet x: Wm7Type0 = 1; let (a, mut b): (u8, u8) = (1, 2);\n\nlet a: Wm7Type1 = a;\nlet mut b: Wm7Type2 = b;\nshow!(x);\n"
        );
        let value = &cell.statements[0];
        let place = value.text.find('1').map(|at| value.source_offset(at));
        assert_eq!(place.map(|at| &source[at..=at]), Some("1"));
        let shown = &cell.statements[4];
        assert_eq!(shown.source_offset(shown.text.find('x').unwrap_or(0)), source.len() - 1);
    }

    #[test]
    fn a_trailing_comment_stays_outside_of_what_is_shown() {
        let cell = Cell::parse("1 + 1 // two", 0, Some("show"));
        assert_eq!(cell.rust, "show!(1 + 1); // two\n");
    }

    #[test]
    fn a_type_is_another_when_its_layout_may_be() {
        let text = |source: &str| Cell::parse(source, 0, None).types[0].text.clone();
        let point = "struct Point { x: u8 }";
        assert_eq!(text(point), text("#[derive(Clone, Debug)]\n/// A point.\nstruct Point {\n    x: u8 // across\n}"));
        assert_ne!(text(point), text("struct Point { x: u16 }"));
        assert_ne!(text(point), text("#[repr(C)] struct Point { x: u8 }"));
    }

    #[test]
    fn a_cell_wants_what_it_names_before_it_binds_it() {
        let wants = |source: &str, name: &str| Cell::parse(source, 0, None).wants(name);
        assert!(wants("println!(\"{x}\")", "x"), "a format names a variable");
        assert!(!wants("max + xy", "x"), "a part of another word is none");
        assert!(wants("let x = x + 1;", "x"));
        assert!(wants("let y = x; let x = 2;", "x"));
        assert!(!wants("let x = 1; x + x", "x"));
        assert!(!wants("let (a, mut x): (u8, u8) = (1, 2); x", "x"));
        assert!(wants("{ let x = 1; } x", "x"), "what a block binds ends with it");
        assert!(wants("r#type + 1", "r#type"));
    }
}
