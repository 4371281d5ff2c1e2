//! Statements that leave a cell, and what they become in a function that returns what the kernel wants to know.

use ra_ap_syntax::ast;
use ra_ap_syntax::{AstNode, SyntaxNode};

use super::built::Edit;
use super::cell::{called, in_another, macro_call, tokens_wait, words};
use super::items::{self, Origin};

/// Macros that never have a value.
const ENDING: [&str; 5] = ["bail", "panic", "todo", "unimplemented", "unreachable"];
/// Functions of `std` that never return.
const ENDING_CALLS: [&str; 4] = ["process::exit", "process::abort", "std::process::exit", "std::process::abort"];

/// Whether an expression never has a value, judging by its text: it leaves the cell or ends it.
pub(super) fn is_way_out(node: &SyntaxNode) -> bool {
    if let Some(call) = macro_call(node) {
        return ENDING.contains(&&*called(&call));
    }
    let is_way_out = |node: Option<&SyntaxNode>| node.is_some_and(is_way_out);
    let ends = |block: Option<ast::BlockExpr>| {
        // The list contains the statements and then the last expression, if any.
        let list = block.and_then(|block| block.stmt_list());
        is_way_out(list.and_then(|list| list.syntax().children().last()).as_ref())
    };
    match ast::ExprStmt::cast(node.clone()).and_then(|statement| statement.expr()).or(ast::Expr::cast(node.clone())) {
        Some(ast::Expr::ReturnExpr(_)) => true,
        Some(ast::Expr::ParenExpr(inner)) => is_way_out(inner.expr().as_ref().map(AstNode::syntax)),
        Some(ast::Expr::CallExpr(call)) => {
            call.expr().is_some_and(|path| ENDING_CALLS.contains(&&*items::compact(path.syntax())))
        }
        Some(ast::Expr::BlockExpr(block)) => block.modifier().is_none() && ends(Some(block)),
        Some(ast::Expr::IfExpr(choice)) => {
            let otherwise = match choice.else_branch() {
                Some(ast::ElseBranch::Block(block)) => ends(Some(block)),
                Some(ast::ElseBranch::IfExpr(other)) => is_way_out(Some(other.syntax())),
                None => false,
            };
            otherwise && ends(choice.then_branch())
        }
        Some(ast::Expr::LoopExpr(repeated)) => {
            !words(&repeated.syntax().text().to_string()).any(|word| word == "break")
        }
        Some(ast::Expr::MatchExpr(choice)) => {
            let mut arms = choice.match_arm_list().into_iter().flat_map(|list| list.arms()).peekable();
            arms.peek().is_some() && arms.all(|arm| is_way_out(arm.expr().as_ref().map(AstNode::syntax)))
        }
        _ => false,
    }
}

/// The edits for statements that leave the cell. The cell's function returns what the kernel wants to know, so anything that would return
/// something else goes through macros of the runtime.
pub(super) fn leaves(node: &SyntaxNode, origin: &Origin, rules: &dyn Fn(&str) -> Option<String>) -> Vec<Edit> {
    let mut edits = Vec::new();
    for inner in node.descendants().filter(|inner| !in_another(inner, node)) {
        let range = origin.range(&inner);
        let through = if let Some(leaving) = ast::ReturnExpr::cast(inner.clone()) {
            let Some(word) = leaving.return_token() else { continue };
            let value = leaving.expr().map(|value| items::compact(value.syntax())).unwrap_or_default();
            // `.into()` needs a target type, which only a function's signature would tell.
            let boxed = if value.starts_with("Err(") && value.ends_with(".into())") { "boxed" } else { "" };
            edits.push(Edit::replace(origin.token(&word), format!("::wavemesh_cell::leave!({boxed}")));
            edits.push(Edit::insert(range.end, ")"));
            continue;
        } else if let Some(call) = ast::MacroCall::cast(inner) {
            let name = called(&call);
            // A macro of the notebook with this name may do something else.
            let own = rules(&name);
            let returns = own.as_ref().is_none_or(|text| words(text).any(|word| word == "return"));
            match (name.as_str(), returns, tokens_wait(call.syntax())) {
                ("bail", true, false) => "::wavemesh_cell::fail!(",
                ("bail", true, true) => "::wavemesh_cell::fail!(await ",
                ("ensure", true, false) => "::wavemesh_cell::check!(",
                ("ensure", true, true) => "::wavemesh_cell::check!(await ",
                (_, _, false) => match own.as_deref().and_then(way_of_own) {
                    Some(way) => way,
                    None => continue,
                },
                _ => continue,
            }
        } else {
            continue;
        };
        edits.push(Edit::insert(range.start, through));
        edits.push(Edit::insert(range.end, ")"));
    }
    edits
}

/// The start of the call for a macro of the notebook that has a value or returns an error. A macro that binds variables, or that continues
/// or leaves a loop of the cell, must stay in the cell's own function.
fn way_of_own(text: &str) -> Option<&'static str> {
    let dense: String = text.split_whitespace().collect();
    let binds = ["=>{let", "=>(let", "=>[let"].iter().any(|start| dense.contains(start))
        || words(text).any(|word| ["break", "continue"].contains(&word));
    match dense.split_once("returnErr(") {
        Some((_, rest)) if !binds && rest.contains(".into())") => Some("::wavemesh_cell::own!(boxed "),
        Some(_) if !binds => Some("::wavemesh_cell::own!("),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::engine::built::Built;
    use crate::engine::cell::Cell;

    #[test]
    fn what_never_has_a_value_is_not_shown() {
        for (source, shown) in [
            ("{ f(); panic!(\"x\") }", false),
            ("{ f(); return; }", false),
            ("if x { todo!() } else if y { std::process::exit(1) } else { (unreachable!()) }", false),
            ("match x { 1 => bail!(\"one\"), _ => { f(); process::abort() } }", false),
            ("loop { f(); }", false),
            ("loop { break f(); }", true),
            ("{ panic!(\"x\"); 1 }", true),
            ("if x { panic!() } else { 1 }", true),
            ("async { panic!() }", true),
            ("match x {}", true),
            ("{ f() }", true),
        ] {
            let cell = Cell::parse(source, Path::new("/"), &|_| None);
            assert_eq!(cell.statements.last().map(|last| last.shown), Some(shown), "{source}");
        }
    }

    #[test]
    fn what_would_return_from_the_cell_goes_through_the_runtime() {
        let own =
            |name: &str| (name == "bail").then(|| "macro_rules! bail { ($t:expr) => { println!($t) } }".to_owned());
        for (source, edited, by_own) in [
            ("if x { return; }", "if x { ::wavemesh_cell::leave!(); }", None),
            ("return Ok(());", "::wavemesh_cell::leave!( Ok(()));", None),
            (
                "let y = match x { 1 => 2, _ => bail!(\"no\") };",
                "let y = match x { 1 => 2, _ => ::wavemesh_cell::fail!(bail!(\"no\")) };",
                None,
            ),
            ("return Err(\"x\".into());", "::wavemesh_cell::leave!(boxed Err(\"x\".into()));", None),
            ("anyhow::ensure!(x);", "::wavemesh_cell::check!(anyhow::ensure!(x));", None),
            ("ensure!(f().await, \"x\");", "::wavemesh_cell::check!(await ensure!(f().await, \"x\"));", None),
            ("bail!(\"await {}\", f().await);", "::wavemesh_cell::fail!(await bail!(\"await {}\", f().await));", None),
            ("bail!(\"await\");", "::wavemesh_cell::fail!(bail!(\"await\"));", None),
            ("let f = || { return 1; };", "let f = || { return 1; };", None),
            ("|| return 1", "|| return 1", None),
            ("bail!(\"x\");", "bail!(\"x\");", Some(own)),
        ] {
            let rules = |name: &str| by_own.and_then(|own| own(name));
            let cell = Cell::parse(source, Path::new("/"), &rules);
            let mut built = Built::default();
            built.push(source, cell.statements[0].range.clone(), &cell.statements[0].edits);
            assert_eq!(built.text, edited, "{source}");
        }
    }
}
