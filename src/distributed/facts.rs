//! Compares what the processes of a group must have in common, and finds the first difference.

use serde_json::Value;

/// The first difference between two values: its place (`training.steps`), and the value on each side.
pub(super) fn difference(ours: &Value, theirs: &Value) -> Option<(String, String, String)> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let [a, b] = [a, b].map(|map| map.get(key).unwrap_or(&Value::Null));
                difference(a, b).map(|found| under(key, found))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(at, (a, b))| difference(a, b).map(|found| under(&at.to_string(), found))),
        _ => (ours != theirs).then(|| (String::new(), short(ours), short(theirs))),
    }
}

fn under(key: &str, (place, ours, theirs): (String, String, String)) -> (String, String, String) {
    let place = if place.is_empty() { key.to_string() } else { format!("{key}.{place}") };
    (place, ours, theirs)
}

/// A value in the form for a message.
fn short(value: &Value) -> String {
    const MOST: usize = 120;
    let text = match value {
        Value::Null => "nothing".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let base = json!({"version": "1", "training": {"steps": 10, "widths": [1, 2]}});
        let found = |other: Value| difference(&base, &other);
        assert_eq!(found(base.clone()), None);
        let place =
            |other: Value| found(other).map(|(place, ours, theirs)| format!("{place}: {ours}, {theirs}")).unwrap();
        assert_eq!(
            place(json!({"version": "1", "training": {"steps": 11, "widths": [1, 2]}})),
            "training.steps: 10, 11"
        );
        assert_eq!(
            place(json!({"version": "1", "training": {"steps": 10, "widths": [1, 3]}})),
            "training.widths.1: 2, 3"
        );
        assert_eq!(
            place(json!({"version": "1", "training": {"steps": 10, "widths": [1]}})),
            "training.widths: [1,2], [1]"
        );
        assert_eq!(
            place(json!({"version": "1", "training": {"steps": 10, "widths": [1, 2], "x": 1}})),
            "training.x: nothing, 1"
        );
        assert_eq!(place(json!({"training": {"steps": 10, "widths": [1, 2]}})), "version: 1, nothing");
    }
}
