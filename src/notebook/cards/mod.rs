//! Cards: what a value of each room shows of itself when it ends a cell.

mod tensor;
mod tensor_stats;

use super::escape;

/// The frame every card shares: a title line, then its body. It takes its text colour from the page, so it reads well in
/// light and dark themes. `title` and `facts` are text; `body` is HTML.
pub(crate) fn card(title: &str, facts: &[(&str, String)], body: &str) -> String {
    let facts: String = facts
        .iter()
        .map(|(name, value)| {
            let name = if name.is_empty() {
                String::new()
            } else {
                format!("<span style=\"opacity:.65\">{}</span> ", escape(name))
            };
            format!("<span style=\"white-space:nowrap\">{name}{}</span>", escape(value))
        })
        .collect::<Vec<_>>()
        .join("<span style=\"opacity:.4\"> · </span>");
    format!(
        "<div style=\"display:inline-block;max-width:100%;border:1px solid rgba(127,127,127,.4);border-radius:6px;padding:6px 10px;font:12px/1.6 system-ui,sans-serif\">\
         <div><b style=\"font-size:13px\">{}</b> &nbsp;{facts}</div>{body}</div>",
        escape(title)
    )
}

/// The same as text: `title | name value · name value`.
pub(crate) fn card_text(title: &str, facts: &[(&str, String)]) -> String {
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, value)| if name.is_empty() { value.clone() } else { format!("{name} {value}") })
        .collect();
    format!("{title} | {}", facts.join(" · "))
}
