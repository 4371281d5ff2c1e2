//! Statics exist once. The version of the notebook's definitions that first has a static is its home and exports it; later versions only
//! declare the static and are linked with its home. So a static keeps its value while the code around it changes.
//!
//! This applies to every `static` and `static mut` in an item, and to those that `thread_local!` and `lazy_static!` make: `thread_local!`
//! becomes a static `LocalKey` of a hidden thread-local, and `lazy_static!` becomes a static `LazyLock`.

use std::collections::HashMap;
use std::ops::Range;

use ra_ap_syntax::ast::{self, HasAttrs, HasGenericArgs, HasName};
use ra_ap_syntax::{AstNode, Edition, SourceFile, SyntaxNode};

use super::built::Edit;
use super::items::{Origin, compact};

/// A static somewhere in an item.
#[derive(Clone, Debug)]
pub struct Static {
    /// The names around it and its own, such as `tick::N`. No other static of the notebook has the same path.
    pub path: String,
    pub name: String,
    /// The text that a declaration replaces: the static itself, or the macro call that makes it.
    pub range: Range<usize>,
    /// Its declaration without an initial value: `static N: u32`.
    declaration: String,
    /// The edits that make a version its home; `{symbol}` stands for the exported name.
    home: Vec<Edit>,
    /// Its attributes `#[cfg(…)]`.
    conditions: String,
    /// Whether it is `static mut`; if not, its declaration says `safe`.
    mutable: bool,
    /// Its text. If it changes, this is another static.
    pub text: String,
}

impl Static {
    /// The edits that make this version its home.
    pub fn defined(&self, symbol: &str) -> Vec<Edit> {
        self.home
            .iter()
            .map(|edit| Edit { range: edit.range.clone(), text: edit.text.replace("{symbol}", symbol) })
            .collect()
    }

    /// The declaration of a static that already has a home.
    pub fn declared(&self, symbol: &str) -> String {
        let safe = if self.mutable { "" } else { "safe " };
        let (visibility, rest) = self.declaration.split_once("static").unwrap_or(("", &self.declaration));
        let conditions = &self.conditions;
        format!("{conditions}unsafe extern \"C\" {{ #[link_name = \"{symbol}\"] {visibility}{safe}static{rest}; }} ")
    }
}

/// The statics of an item.
pub fn find(node: &SyntaxNode, origin: &Origin) -> Vec<Static> {
    let mut found = Vec::new();
    for inner in node.descendants() {
        let mut outer = inner.ancestors().skip(1).take_while(|outer| node.parent().as_ref() != Some(outer));
        let at_root = inner == *node || !outer.any(|outer| encloses(&outer));
        // Names inside the braces of a `mod` keep the privacy that their author gave them.
        let public = |visibility: bool| if at_root || visibility { "pub " } else { "" };
        if let Some(item) = ast::Static::cast(inner.clone()) {
            if item.syntax().ancestors().any(|node| ast::ExternBlock::can_cast(node.kind())) {
                continue;
            }
            let (Some(name), Some(ty)) = (item.name(), item.ty()) else { continue };
            let has_visibility = inner.children().any(|child| ast::Visibility::can_cast(child.kind()));
            let name = name.text().to_string();
            let range = origin.range(&inner);
            let mutable = item.mut_token().is_some();
            let declaration = format!(
                "{}static {}{name}: {}",
                public(has_visibility),
                if mutable { "mut " } else { "" },
                with_lifetimes(ty.syntax())
            );
            found.push(Static {
                path: path(node, &inner, &name),
                home: vec![Edit::insert(range.start, "#[unsafe(export_name = \"{symbol}\")] ")],
                range,
                declaration,
                conditions: conditions(&item),
                mutable,
                text: compact(&inner),
                name,
            });
        } else if let Some(call) = ast::MacroCall::cast(inner.clone()) {
            found.extend(of_macro(node, &inner, &call, origin, at_root));
        }
    }
    found
}

/// Numbers statics with the same path, of which conditions keep only one.
pub fn tell_apart(statics: &mut [Static]) {
    let mut known: HashMap<String, usize> = HashMap::new();
    for found in statics {
        let count = known.entry(found.path.clone()).or_default();
        *count += 1;
        if *count > 1 {
            found.path.push_str(&format!("#{count}"));
        }
    }
}

/// The attributes `#[cfg(…)]` of a node.
fn conditions(node: &impl HasAttrs) -> String {
    let of_cfg = node.attrs().filter(|attribute| attribute.simple_name().is_some_and(|name| name == "cfg"));
    of_cfg.map(|attribute| format!("{} ", attribute.syntax().text())).collect()
}

/// The type with `&'static str` in place of `&str`: a static may leave the lifetime out, but a declaration without a value may not.
fn with_lifetimes(ty: &SyntaxNode) -> String {
    let start = ty.text_range().start();
    // The parameters of functions have their own lifetimes.
    let of_function = |node: &SyntaxNode| {
        let is_function = |outer: &SyntaxNode| {
            ast::FnPtrType::can_cast(outer.kind())
                || ast::PathSegment::cast(outer.clone()).is_some_and(|path| path.parenthesized_arg_list().is_some())
        };
        node.ancestors().take_while(|outer| *outer != *ty).chain([ty.clone()]).any(|outer| is_function(&outer))
    };
    let mut edits: Vec<(usize, usize, &str)> = Vec::new();
    for node in ty.descendants().filter(|node| !of_function(node)) {
        let at = |byte| usize::from(byte - start);
        if let Some(reference) = ast::RefType::cast(node.clone()).filter(|reference| reference.lifetime().is_none()) {
            edits.extend(reference.amp_token().map(|amp| {
                let end = at(amp.text_range().end());
                (end, end, "'static ")
            }));
        } else if ast::Lifetime::can_cast(node.kind()) && node.text() == "'_" {
            edits.push((at(node.text_range().start()), at(node.text_range().end()), "'static"));
        } else if let Some(path) = ast::PathSegment::cast(node)
            && path.name_ref().is_some_and(|name| name.text() == "Cow")
            && let Some(list) = path.generic_arg_list()
            && !list.generic_args().any(|argument| matches!(argument, ast::GenericArg::LifetimeArg(_)))
        {
            edits.extend(list.l_angle_token().map(|angle| {
                let end = at(angle.text_range().end());
                (end, end, "'static, ")
            }));
        }
    }
    edits.sort_unstable();
    let mut text = ty.text().to_string();
    for (from, to, with) in edits.into_iter().rev() {
        text.replace_range(from..to, with);
    }
    text
}

/// Whether names inside a node are separate from those around it.
fn encloses(node: &SyntaxNode) -> bool {
    ast::Fn::can_cast(node.kind()) || ast::Module::can_cast(node.kind()) || ast::AssocItemList::can_cast(node.kind())
}

fn of_macro(
    node: &SyntaxNode,
    inner: &SyntaxNode,
    call: &ast::MacroCall,
    origin: &Origin,
    at_root: bool,
) -> Vec<Static> {
    let name = call.path().map(|path| compact(path.syntax())).unwrap_or_default();
    let local = match name.rsplit("::").next() {
        Some("thread_local") => true,
        Some("lazy_static") => false,
        _ => return Vec::new(),
    };
    let Some(tree) = call.token_tree() else { return Vec::new() };
    let outer = origin.range(inner);
    // As a statement, the call includes the semicolon after it.
    let outer = match origin.source.get(outer.end..) {
        Some(rest) if rest.trim_start().starts_with(';') => outer.start..outer.end + rest.find(';').unwrap_or(0) + 1,
        _ => outer,
    };
    let text = tree.syntax().text().to_string();
    let first = origin.range(tree.syntax()).start + 1;
    let Some(inside) = text.get(1..text.len().saturating_sub(1)) else { return Vec::new() };
    let inside = if local { inside.to_owned() } else { inside.replace("static ref ", "static     ") };
    // The last entry may lack its semicolon.
    let parsed = SourceFile::parse(&format!("{inside};"), Edition::Edition2024).syntax_node();
    let entries: Vec<ast::Static> = parsed.children().filter_map(ast::Static::cast).collect();
    let count = entries.len();
    let mut found = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let (Some(name), Some(ty), Some(body)) = (entry.name(), entry.ty(), entry.body()) else { continue };
        let place = |node: &SyntaxNode| {
            first + usize::from(node.text_range().start())..first + usize::from(node.text_range().end())
        };
        let visible = at_root || entry.syntax().children().any(|child| ast::Visibility::can_cast(child.kind()));
        let public = if visible { "pub " } else { "" };
        let (named, typed) = (name.text().to_string(), with_lifetimes(ty.syntax()));
        let made =
            if local { format!("::std::thread::LocalKey<{typed}>") } else { format!("::std::sync::LazyLock<{typed}>") };
        let declaration = format!("{public}static {named}: {made}");
        // Conditions of the call apply to each of its entries.
        let conditions = format!("{}{}", self::conditions(call), self::conditions(&entry));
        let export = "#[unsafe(export_name = \"{symbol}\")]";
        let home = if local {
            let mut home = vec![Edit::replace(place(name.syntax()), format!("__WM_{named}"))];
            home.push(Edit::insert(outer.end, format!(" {conditions}{export} {declaration} = __WM_{named};")));
            home
        } else {
            // Replaces the text from the macro's head, or the end of the last entry, to the value; then the text from the value to the next
            // entry.
            let value = place(body.syntax());
            let mut home = Vec::new();
            let start = if index == 0 { outer.start } else { place(entry.syntax()).start };
            home.push(Edit::replace(
                start..value.start,
                format!("{conditions}{export} {declaration} = ::std::sync::LazyLock::new(|| "),
            ));
            let end = if index + 1 == count { outer.end } else { place(entry.syntax()).end };
            home.push(Edit::replace(value.end..end.max(value.end), "); "));
            home
        };
        found.push(Static {
            path: path(node, inner, &named),
            range: outer.clone(),
            declaration,
            home,
            conditions,
            mutable: false,
            text: compact(entry.syntax()),
            name: named,
        });
    }
    found
}

/// The path of a static: the names around it, from the notebook's item inwards, then its own.
fn path(root: &SyntaxNode, node: &SyntaxNode, name: &str) -> String {
    let mut names = vec![name.to_owned()];
    if node == root {
        return name.to_owned();
    }
    for outer in node.ancestors().skip(1) {
        let part = match ast::Item::cast(outer.clone()) {
            Some(ast::Item::Fn(item)) => item.name().map(|name| name.text().to_string()),
            Some(ast::Item::Module(item)) => item.name().map(|name| name.text().to_string()),
            Some(ast::Item::Trait(item)) => item.name().map(|name| name.text().to_string()),
            Some(ast::Item::Impl(item)) => item.self_ty().map(|ty| {
                let of = item.trait_().map_or(String::new(), |of| format!("{} for ", compact(of.syntax())));
                format!("{of}{}", compact(ty.syntax()))
            }),
            _ => None,
        };
        names.extend(part);
        if outer == *root {
            break;
        }
    }
    names.reverse();
    names.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::built::Built;
    use std::path::Path;

    fn versions(source: &str) -> (Vec<String>, String, String) {
        let parsed = SourceFile::parse(source, Edition::Edition2024).syntax_node();
        let node = parsed.children().next().unwrap_or(parsed);
        let origin = Origin { source, shift: 0, folder: Path::new("/") };
        let found = find(&node, &origin);
        let edits: Vec<Edit> = found.iter().flat_map(|found| found.defined("s")).collect();
        let (mut home, mut later) = (Built::default(), Built::default());
        home.push(source, 0..source.len(), &edits);
        let declared: String = found.iter().map(|found| found.declared("s")).collect();
        if let Some(first) = found.first() {
            later.push(source, 0..source.len(), &[Edit::replace(first.range.clone(), declared)]);
        }
        (found.into_iter().map(|found| found.path).collect(), home.text, later.text)
    }

    #[test]
    fn a_static_is_exported_by_its_home_and_declared_later() {
        let (paths, home, later) = versions("fn tick() -> u32 { static N: AtomicU32 = AtomicU32::new(0); 1 }");
        assert_eq!(paths, ["tick::N"]);
        assert_eq!(
            home,
            "fn tick() -> u32 { #[unsafe(export_name = \"s\")] static N: AtomicU32 = AtomicU32::new(0); 1 }"
        );
        assert_eq!(
            later,
            "fn tick() -> u32 { unsafe extern \"C\" { #[link_name = \"s\"] safe static N: AtomicU32; }  1 }"
        );
        let (paths, _, later) = versions("static mut X: u8 = 1;");
        assert_eq!(
            (paths, later),
            (vec!["X".to_owned()], "unsafe extern \"C\" { #[link_name = \"s\"] pub static mut X: u8; } ".to_owned())
        );
    }

    #[test]
    fn a_thread_local_becomes_a_static_key_and_a_lazy_static_a_lazy_lock() {
        let (paths, home, _) = versions("thread_local! { static N: Cell<u8> = const { Cell::new(1) } }");
        assert_eq!(paths, ["N"]);
        assert_eq!(
            home,
            "thread_local! { static __WM_N: Cell<u8> = const { Cell::new(1) } } #[unsafe(export_name = \"s\")] pub static N: \
             ::std::thread::LocalKey<Cell<u8>> = __WM_N;"
        );
        let (paths, home, later) = versions("lazy_static! { static ref A: u8 = one(); static ref B: u8 = 2; }");
        assert_eq!(paths, ["A", "B"]);
        assert_eq!(
            home,
            "#[unsafe(export_name = \"s\")] pub static A: ::std::sync::LazyLock<u8> = ::std::sync::LazyLock::new(|| one());  \
             #[unsafe(export_name = \"s\")] pub static B: ::std::sync::LazyLock<u8> = ::std::sync::LazyLock::new(|| 2); "
        );
        assert!(later.contains("safe static A: ::std::sync::LazyLock<u8>") && !later.contains("one()"), "{later}");
    }

    #[test]
    fn a_declaration_names_the_lifetime_that_a_static_leaves_out() {
        for (written, declared) in [
            ("[&str; 2]", "[&'static str; 2]"),
            ("&[&mut u8]", "&'static [&'static mut u8]"),
            ("Mutex<Vec<Cow<str>>>", "Mutex<Vec<Cow<'static, str>>>"),
            ("Mutex<Option<P<'_>>>", "Mutex<Option<P<'static>>>"),
            ("&'static str", "&'static str"),
            ("fn(&str) -> &str", "fn(&str) -> &str"),
            ("&'static (dyn Fn(&str) -> Cow<str> + Sync)", "&'static (dyn Fn(&str) -> Cow<str> + Sync)"),
        ] {
            let node = SourceFile::parse(&format!("static S: {written} = x;"), Edition::Edition2024).syntax_node();
            let ty = node.descendants().find_map(ast::Static::cast).and_then(|item| item.ty());
            assert_eq!(ty.map(|ty| with_lifetimes(ty.syntax())).as_deref(), Some(declared));
        }
    }
}
