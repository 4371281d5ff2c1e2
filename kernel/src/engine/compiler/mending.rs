//! What a build's errors tell of a cell's variables: which were moved away, which borrow, and which levels are in the way.

use serde_json::Value;

use super::plan::{Plan, place};
use crate::engine::body::{Place, Woven};
use crate::engine::cell::Cell;
use crate::engine::rustc::spans;
use crate::engine::variables::{Fate, State as VariableState};

/// Why a variable that borrows is not stored.
const BORROWED: &str =
    "it borrows from another variable. To keep it, make it own its data: `.clone()`, `.to_owned()`, `.to_vec()`";

/// Errors of the borrow checker, which a level may cause.
const BORROWS: [&str; 17] = [
    "E0381", "E0382", "E0384", "E0499", "E0502", "E0503", "E0505", "E0506", "E0507", "E0521", "E0373", "E0594",
    "E0596", "E0597", "E0713", "E0716", "E0310",
];

/// Those of them that a borrow causes which lasts too long.
const LASTING: [&str; 9] = ["E0499", "E0502", "E0503", "E0505", "E0506", "E0521", "E0597", "E0713", "E0716"];

impl Plan {
    /// Changes what cannot be as it is. True if that may mend every error there is.
    pub fn mend(&mut self, messages: &[Value], woven: &Woven, cell: &Cell, number: u32) -> bool {
        let errors = messages.iter().filter(|message| message["level"] == "error" && !spans(message).is_empty());
        let mut mended = false;
        let mut levels_matter = false;
        let mut given_up = Vec::new();
        for message in errors {
            let code = message["code"]["code"].as_str().unwrap_or_default();
            let stored_while_borrowed = code == "E0505"
                && spans(message)
                    .iter()
                    .all(|span| matches!(place(span, woven), Some(Place::Keep(_))) == (span["is_primary"] == true));
            if stored_while_borrowed && self.give_up_borrower(message, woven, cell, &mut given_up)
                || self.mend_one(message, code, woven, cell, number)
            {
                mended = true;
            } else if BORROWS.contains(&code) && !self.flat && !self.levels.is_empty() {
                levels_matter = true;
            } else if LASTING.contains(&code) && self.give_up_borrower(message, woven, cell, &mut given_up) {
                mended = true;
            } else {
                return false;
            }
        }
        if levels_matter {
            self.fewer_levels(messages, woven);
            return true;
        }
        mended
    }

    fn mend_one(&mut self, message: &Value, code: &str, woven: &Woven, cell: &Cell, number: u32) -> bool {
        let of_kind = |primary: bool| {
            let spans = spans(message).iter().filter(move |span| span["is_primary"] == primary);
            spans.filter_map(|span| place(span, woven))
        };
        match (code, of_kind(true).next()) {
            (_, Some(Place::Load(index))) => {
                let ty = &self.loaded[index].ty;
                let reason = format!("its type `{ty}` cannot be named in another cell");
                self.loaded[index].fate = Fate::Gone(VariableState::Fleeting(reason));
                // It does not come in at all.
                true
            }
            ("E0382", Some(Place::Keep(index))) => {
                let fate = self.moved(message, woven, cell, number, &self.bound[index].fate);
                self.bound[index].fate = fate;
                true
            }
            ("E0382", Some(Place::PutBack(index))) => {
                let fate = self.moved(message, woven, cell, number, &self.loaded[index].fate);
                self.loaded[index].fate = fate;
                true
            }
            ("E0381", Some(Place::Keep(index))) => {
                let reason = "it may not have been given a value".to_owned();
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(reason));
                true
            }
            (_, Some(Place::Keep(index))) if self.bound[index].supposed => {
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(String::new()));
                true
            }
            ("E0425", Some(Place::Keep(index))) => {
                self.bound[index].fate = Fate::Gone(VariableState::Moved(number));
                true
            }
            ("E0597" | "E0505" | "E0716" | "E0373" | "E0521" | "E0503" | "E0506" | "E0310", _) => {
                let kept = of_kind(false).chain(of_kind(true)).find_map(|place| match place {
                    Place::Keep(index) => Some(index),
                    _ => None,
                });
                match kept {
                    Some(index) => {
                        self.bound[index].fate = Fate::Gone(VariableState::Fleeting(BORROWED.to_owned()));
                        self.levels = self.levels_of(cell);
                        true
                    }
                    None => false,
                }
            }
            _ => false,
        }
    }

    /// A variable that is stored must own its data. Where one borrows without saying so in its own line, as a struct does that holds a
    /// closure, rustc tells of what is borrowed alone: the variable that the same statement binds is not stored then. `given_up` holds those
    /// that other errors of the same build cost.
    fn give_up_borrower(&mut self, message: &Value, woven: &Woven, cell: &Cell, given_up: &mut Vec<usize>) -> bool {
        let statement_of = |span: &Value| {
            let (byte, verbatim) = woven.built.source_of(span["byte_start"].as_u64()?.try_into().ok()?)?;
            let statement = cell.statements.iter().position(|statement| statement.range.contains(&byte))?;
            verbatim.then_some((span["is_primary"] == true, statement))
        };
        // The error points at the borrow itself; of its other places the later ones, as what is borrowed comes first.
        let mut statements: Vec<(bool, usize)> = spans(message).iter().filter_map(statement_of).collect();
        statements.sort_by(|one, other| other.cmp(one));
        for (_, statement) in statements {
            for (index, bound) in self.bound.iter_mut().enumerate().filter(|(_, bound)| bound.statement == statement) {
                if given_up.contains(&index) {
                    return true;
                }
                if !matches!(bound.fate, Fate::Gone(_)) {
                    bound.fate = Fate::Gone(VariableState::Fleeting(BORROWED.to_owned()));
                    given_up.push(index);
                    return true;
                }
            }
        }
        false
    }

    /// What becomes of a variable that the cell moves: up to the statement that does so it can be kept, if a level lies between.
    fn moved(&self, message: &Value, woven: &Woven, cell: &Cell, number: u32, before: &Fate) -> Fate {
        let gone = Fate::Gone(VariableState::Moved(number));
        if self.flat || !matches!(before, Fate::Stored) {
            return gone;
        }
        let through_level =
            spans(message).iter().any(|span| matches!(place(span, woven), Some(Place::Level(_) | Place::First)));
        let by = spans(message)
            .iter()
            .filter(|span| span["is_primary"] == false && place(span, woven).is_none())
            .filter_map(|span| woven.built.source_of(span["byte_start"].as_u64()?.try_into().ok()?))
            .filter(|(_, verbatim)| *verbatim)
            .find_map(|(byte, _)| cell.statements.iter().position(|statement| statement.range.contains(&byte)));
        match by {
            Some(by) if through_level => Fate::TakenBy(by),
            _ => gone,
        }
    }

    /// Leaves out the levels that errors name and those below them; all, when none is named, so that errors are told of the code as the
    /// user wrote it.
    fn fewer_levels(&mut self, messages: &[Value], woven: &Woven) {
        let named = messages
            .iter()
            .filter(|message| message["level"] == "error")
            .flat_map(|message| spans(message).iter())
            .filter_map(|span| match place(span, woven) {
                Some(Place::Level(statement)) => Some(statement),
                _ => None,
            })
            .min();
        match named {
            Some(named) if self.levels.iter().any(|&level| level < named) => self.levels.retain(|&level| level < named),
            _ => {
                self.levels.clear();
                self.flat = true;
            }
        }
        // What is taken through a reference was for levels that may be gone.
        for fate in self
            .bound
            .iter_mut()
            .map(|bound| &mut bound.fate)
            .chain(self.loaded.iter_mut().map(|loaded| &mut loaded.fate))
        {
            if matches!(fate, Fate::TakenBy(_)) {
                *fate = Fate::Stored;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::engine::body::{Body, levels};
    use crate::engine::variables::Bound;

    /// A cell, how it is to be built, and what is built of it.
    struct Case {
        source: &'static str,
        cell: Cell,
        plan: Plan,
    }

    impl Case {
        fn new(source: &'static str) -> Case {
            let cell = Cell::parse(source, Path::new("/"), &|_| None);
            let plan = Plan::for_tests(&cell);
            Case { source, cell, plan }
        }

        fn woven(&self) -> Woven {
            let body = Body {
                source: self.source,
                cell: &self.cell,
                bound: &self.plan.bound,
                loaded: &self.plan.loaded,
                forgotten: &[],
                levels: &self.plan.levels,
                run: 1,
                names: None,
                prelude: None,
                crates: &[],
                show: None,
                block_on: None,
                within: None,
            };
            body.weave()
        }

        /// What `mend` makes of an error at these pieces of the woven code, of which the first is where the error is.
        fn mend(&mut self, code: &str, pieces: &[&str]) -> bool {
            let woven = self.woven();
            let spans: Vec<Value> = pieces
                .iter()
                .enumerate()
                .map(|(index, piece)| {
                    let start = woven.built.text.find(piece).unwrap_or_default();
                    json!({"byte_start": start, "byte_end": start + piece.len(), "is_primary": index == 0})
                })
                .collect();
            let message = json!({"level": "error", "code": {"code": code}, "spans": spans});
            self.plan.mend(&[message], &woven, &self.cell, 7)
        }

        fn fates(&self) -> Vec<&Fate> {
            self.plan.bound.iter().map(|bound: &Bound| &bound.fate).collect()
        }
    }

    #[test]
    fn a_variable_that_is_moved_is_kept_up_to_there() {
        let mut case = Case::new("let v = vec![1]; let n = 2; drop(v);");
        assert!(case.mend("E0382", &["keep(0", "let __wm_end", "drop(v)"]));
        assert_eq!(case.fates(), [&Fate::TakenBy(2), &Fate::Stored]);
        assert!(case.woven().built.text.contains("take_over(0, &mut v)"));
    }

    #[test]
    fn what_borrows_is_not_stored_and_what_it_borrows_is() {
        let mut case = Case::new("let v = vec![1]; let first = &v[0]; let n = 2;");
        assert!(case.mend("E0597", &["v[0]", "keep(1"]));
        assert!(matches!(case.fates()[..], [Fate::Stored, Fate::Gone(VariableState::Fleeting(_)), Fate::Stored]));
    }

    #[test]
    fn levels_that_are_in_the_way_are_left_out() {
        let mut case = Case::new("let mut v = vec![1]; let r = &mut v; let n = 5; r.push(n);");
        let before = levels(&case.cell, &case.plan.bound);
        assert!(case.mend("E0502", &["level(||", "&mut v"]));
        assert!(case.plan.levels.len() < before.len());
    }

    #[test]
    fn an_error_of_the_users_is_not_mended() {
        let mut case = Case::new("let n: i32 = \"text\"; n");
        assert!(!case.mend("E0308", &["\"text\""]));
        assert_eq!(case.fates(), [&Fate::Stored]);
    }
}
