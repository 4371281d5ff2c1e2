//! Reads from a build's errors which variables of a cell were moved away, which borrow, and which levels are in the way.

use serde_json::Value;

use super::plan::{Plan, place};
use crate::engine::body::{Place, Woven};
use crate::engine::cell::Cell;
use crate::engine::rustc::spans;
use crate::engine::variables::{Bound, Fate, State as VariableState};

/// Why a variable that borrows is not stored.
const BORROWED: &str = "it borrows from another variable, and a reference cannot outlive its cell. To keep it, make it own its data: \
                        `.clone()`, `.to_owned()`, `.to_vec()`";

/// Error codes of the borrow checker that storing variables, or levels, may cause.
const BORROWS: [&str; 18] = [
    "E0381", "E0382", "E0384", "E0499", "E0500", "E0502", "E0503", "E0505", "E0506", "E0507", "E0521", "E0373",
    "E0594", "E0596", "E0597", "E0713", "E0716", "E0310",
];

/// What to do about a build that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// The plan has changed: build again.
    Changed,
    /// The types of the variables must be found out first.
    TypesWanted,
    /// The code itself is wrong.
    Not,
}

impl Plan {
    /// Changes the plan where these errors show that it cannot work.
    pub fn mend(&mut self, messages: &[Value], woven: &Woven, cell: &Cell, number: u32) -> Mended {
        let errors = messages.iter().filter(|message| message["level"] == "error" && !spans(message).is_empty());
        let mut changed = false;
        let mut borrows = Vec::new();
        for message in errors {
            let code = message["code"]["code"].as_str().unwrap_or_default();
            if self.mend_one(message, code, woven, cell, number) {
                changed = true;
            } else if BORROWS.contains(&code) {
                borrows.push(message);
            } else {
                return Mended::Not;
            }
        }
        if borrows.is_empty() {
            return if changed { Mended::Changed } else { Mended::Not };
        }
        if !self.typed {
            return Mended::TypesWanted;
        }
        let before: Vec<Fate> = self.bound.iter().map(|bound| bound.fate.clone()).collect();
        for message in borrows {
            self.give_up_borrower(message, woven, cell);
        }
        if self.bound.iter().zip(&before).any(|(bound, before)| bound.fate != *before) {
            self.levels = self.levels_of(cell);
        } else if !self.flat && !self.levels.is_empty() {
            self.fewer_levels(messages, woven);
        } else {
            self.give_up_all(messages, woven);
        }
        Mended::Changed
    }

    /// Checks whether a build of the plain code failed only because it asks for types, and no longer asks for those. Returns true if so:
    /// build again.
    pub fn mend_plain(&mut self, messages: &[Value], woven: &Woven) -> bool {
        let mut errors = messages.iter().filter(|message| message["level"] == "error" && !spans(message).is_empty());
        let told = |message: &Value| {
            let mut primary = spans(message).iter().filter(|span| span["is_primary"] == true);
            primary.find_map(|span| match place(span, woven) {
                Some(Place::Tell(index)) => Some(index),
                _ => None,
            })
        };
        errors.all(|message| {
            let Some(index) = told(message) else { return false };
            let why = if self.bound[index].supposed { "" } else { "it may not have been given a value" };
            self.bound[index].fate = Fate::Gone(VariableState::Fleeting(why.to_owned()));
            true
        })
    }

    fn mend_one(&mut self, message: &Value, code: &str, woven: &Woven, cell: &Cell, number: u32) -> bool {
        let dropped = spans(message).iter().find_map(|span| match place(span, woven) {
            Some(Place::Drop(index)) => Some(index),
            _ => None,
        });
        if let Some(index) = dropped {
            // The variable was moved, or what it borrows is used again after the variable's last use. There is nothing to drop.
            if let Fate::Borrows(why) = &self.bound[index].fate {
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(why.clone()));
            }
            self.over.insert(index, mover(message, woven, cell));
            return true;
        }
        let at = spans(message).iter().filter(|span| span["is_primary"] == true).find_map(|span| place(span, woven));
        match (code, at) {
            (_, Some(Place::Load(index))) => {
                let ty = &self.loaded[index].ty;
                let reason = format!("its type `{ty}` cannot be named in another cell");
                self.loaded[index].fate = Fate::Gone(VariableState::Fleeting(reason));
                // The variable is not loaded at all.
            }
            ("E0382", Some(Place::Keep(index))) => {
                let fate = self.moved(message, woven, cell, number, &self.bound[index].fate);
                self.bound[index].fate = fate;
            }
            ("E0382", Some(Place::PutBack(index))) => {
                let fate = self.moved(message, woven, cell, number, &self.loaded[index].fate);
                self.loaded[index].fate = fate;
            }
            ("E0381", Some(Place::Keep(index))) => {
                let reason = "it may not have been given a value".to_owned();
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(reason));
            }
            (_, Some(Place::Keep(index))) if self.bound[index].supposed => {
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(String::new()));
            }
            ("E0425", Some(Place::Keep(index))) => {
                self.bound[index].fate = Fate::Gone(VariableState::Moved(number));
            }
            _ => return false,
        }
        true
    }

    /// A stored variable must own its data. A variable that borrows is not stored, and is dropped before the variable from which it borrows
    /// is stored. rustc names the place where it would be stored, or only the borrowed variable; then the borrower is a variable that the
    /// borrowing statement binds.
    fn give_up_borrower(&mut self, message: &Value, woven: &Woven, cell: &Cell) {
        // Only variables that this build still stores: another error may have excluded one already.
        let mut kept = spans(message).iter().rev().filter_map(|span| match place(span, woven) {
            Some(Place::Keep(index)) => Some(index),
            _ => None,
        });
        if let Some(index) = kept.find(|&index| self.may_borrow(index)) {
            self.give_up(index);
            return;
        }
        // Later places come first, because a borrowed variable is bound before its borrower.
        let mut statements: Vec<usize> =
            spans(message).iter().filter_map(|span| statement_of(span, woven, cell)).collect();
        statements.sort_by(|one, other| other.cmp(one));
        for statement in statements {
            if let Some(index) = self.borrower_of(statement) {
                self.give_up_last(index);
                return;
            }
        }
    }

    fn borrower_of(&self, statement: usize) -> Option<usize> {
        let mut bound = self.bound.iter().enumerate().filter(|(_, bound)| bound.statement == statement);
        bound.find(|(index, _)| self.may_borrow(*index)).map(|(index, _)| index)
    }

    /// Gives up a variable that borrows or, if that is done already, the variable into which it was moved.
    fn give_up_last(&mut self, first: usize) {
        let mut next = Some(first);
        while let Some(index) = next {
            let before = self.bound[index].fate.clone();
            self.give_up(index);
            if self.bound[index].fate != before {
                return;
            }
            let taker = self.over.get(&index).copied().flatten();
            // Each step goes to a later statement, so this ends.
            next = taker.filter(|&by| by > self.bound[index].statement).and_then(|by| self.borrower_of(by));
        }
    }

    /// Marks a variable as not stored because it borrows.
    fn give_up(&mut self, index: usize) {
        let is_plain = self.is_reference(index);
        let fate = &mut self.bound[index].fate;
        match fate {
            Fate::Gone(VariableState::Fleeting(_)) if is_plain || self.over.contains_key(&index) => {}
            Fate::Gone(VariableState::Fleeting(why)) => *fate = Fate::Borrows(why.clone()),
            Fate::Gone(_) | Fate::Borrows(_) => {}
            // Dropping it would count as a use.
            _ if is_plain => *fate = Fate::Gone(VariableState::Fleeting(BORROWED.to_owned())),
            _ => *fate = Fate::Borrows(BORROWED.to_owned()),
        }
    }

    /// For the case that rustc does not say which variable borrows. No variable that may borrow is stored; if there is none, no variable
    /// that the errors name; failing that, no variable at all. The code itself is right, so the cell runs.
    fn give_up_all(&mut self, messages: &[Value], woven: &Woven) {
        let is_stored = |bound: &Bound| !matches!(bound.fate, Fate::Gone(_) | Fate::Borrows(_));
        let stored: Vec<usize> = (0..self.bound.len()).filter(|&index| is_stored(&self.bound[index])).collect();
        let may_borrow: Vec<usize> = stored.iter().copied().filter(|&index| self.may_borrow(index)).collect();
        let named =
            |index: &usize| messages.iter().flat_map(spans).any(|span| place(span, woven) == Some(Place::Keep(*index)));
        let named: Vec<usize> = stored.iter().copied().filter(named).collect();
        for group in [may_borrow, named, stored] {
            if !group.is_empty() {
                for index in group {
                    if self.may_borrow(index) {
                        self.give_up(index);
                    } else {
                        let why = "it is still borrowed when the cell ends".to_owned();
                        self.bound[index].fate = Fate::Gone(VariableState::Fleeting(why));
                    }
                }
                return;
            }
        }
    }

    /// What becomes of a variable that the cell moves. It can be kept up to the statement that moves it if a level lies between.
    fn moved(&self, message: &Value, woven: &Woven, cell: &Cell, number: u32, before: &Fate) -> Fate {
        let gone = Fate::Gone(VariableState::Moved(number));
        if self.flat || !matches!(before, Fate::Stored) {
            return gone;
        }
        let through_level =
            spans(message).iter().any(|span| matches!(place(span, woven), Some(Place::Level(_) | Place::First)));
        match mover(message, woven, cell) {
            Some(by) if through_level => Fate::TakenBy(by),
            _ => gone,
        }
    }

    /// Leaves out the levels that errors name, with all later ones. If no earlier level would be left, leaves out all, so that errors are
    /// reported for the code as the user wrote it.
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
        // Taking through a reference was needed for levels that may be gone now.
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

/// The statement that moves the variable that a message is about.
fn mover(message: &Value, woven: &Woven, cell: &Cell) -> Option<usize> {
    spans(message)
        .iter()
        .filter(|span| span["is_primary"] == false && place(span, woven).is_none())
        .find_map(|span| statement_of(span, woven, cell))
}

/// The user's statement in which a span begins.
fn statement_of(span: &Value, woven: &Woven, cell: &Cell) -> Option<usize> {
    let (byte, verbatim) = woven.built.source_of(span["byte_start"].as_u64()?.try_into().ok()?)?;
    let statement = cell.statements.iter().position(|statement| statement.range.contains(&byte))?;
    verbatim.then_some(statement)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::engine::body::{Body, levels};

    /// A cell, its plan, and what was built from it.
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
            let body = Body::for_tests(self.source, &self.cell, &self.plan.bound, &self.plan.levels);
            body.weave()
        }

        /// The result of `mend` for an error at these pieces of the woven code; the first is where the error is.
        fn mend(&mut self, code: &str, pieces: &[&str]) -> Mended {
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

        /// Sets the types of its variables.
        fn tell(&mut self, types: &[&str]) {
            self.plan.know(types.iter().map(|ty| (*ty).to_owned()));
        }

        fn fates(&self) -> Vec<&Fate> {
            self.plan.bound.iter().map(|bound: &Bound| &bound.fate).collect()
        }
    }

    #[test]
    fn a_variable_that_is_moved_is_kept_up_to_there() {
        let mut case = Case::new("let v = vec![1]; let n = 2; drop(v);");
        assert_eq!(case.mend("E0382", &["keep(0", "let __wm_end", "drop(v)"]), Mended::Changed);
        assert_eq!(case.fates(), [&Fate::TakenBy(2), &Fate::Stored]);
        assert!(case.woven().built.text.contains("take_over(0, &mut v)"));
    }

    #[test]
    fn what_borrows_is_not_stored_and_what_it_borrows_is() {
        let mut case = Case::new("let v = vec![1]; let first = &v[0]; let n = 2;");
        assert_eq!(case.mend("E0597", &["v[0]", "keep(1"]), Mended::TypesWanted);
        case.tell(&["std::vec::Vec<i32>", "&i32", "i32"]);
        assert_eq!(case.mend("E0597", &["v[0]", "keep(1"]), Mended::Changed);
        assert!(matches!(case.fates()[..], [Fate::Stored, Fate::Gone(_), Fate::Stored]));
    }

    #[test]
    fn what_borrows_is_dropped_first_unless_that_would_be_to_use_it() {
        let mut case = Case::new("let v = vec![1]; let items = v.iter(); let n = 2;");
        case.tell(&["std::vec::Vec<i32>", "std::slice::Iter<'_, i32>", "i32"]);
        assert_eq!(case.mend("E0597", &["v.iter()", "keep(1"]), Mended::Changed);
        assert!(case.woven().built.text.contains("drop(items); "));
        assert_eq!(case.mend("E0502", &["v.iter()", "::std::mem::drop(items)"]), Mended::Changed);
        assert!(!case.woven().built.text.contains("drop(items); "));
    }

    #[test]
    fn what_a_borrower_is_moved_into_is_given_up_after_it() {
        let mut case = Case::new("let t = vec![1]; let f = boxed(&t); let g = f; g(); drop(g); t.len()");
        let boxed = "std::boxed::Box<dyn std::ops::Fn() + '_>";
        case.tell(&["std::vec::Vec<i32>", boxed, boxed]);
        case.plan.bound[1].fate = Fate::Borrows(String::new());
        assert_eq!(case.mend("E0382", &["::std::mem::drop(f)", "let g = f"]), Mended::Changed);
        assert_eq!(case.fates()[1], &Fate::Gone(VariableState::Fleeting(String::new())));
        assert_eq!(case.mend("E0502", &["t.len()", "boxed(&t)"]), Mended::Changed);
        assert!(matches!(case.fates()[..], [Fate::Stored, Fate::Gone(_), Fate::Borrows(_)]));
    }

    #[test]
    fn what_owns_its_data_is_never_said_to_borrow() {
        let mut case = Case::new("let k = String::new(); let f = boxed(&k); let n = 2;");
        case.tell(&["std::string::String", "std::boxed::Box<dyn std::ops::Fn()>", "i32"]);
        assert_eq!(case.mend("E0505", &["keep(0", "boxed(&k)"]), Mended::Changed);
        assert!(matches!(case.fates()[..], [Fate::Stored, Fate::Borrows(_), Fate::Stored]));
    }

    #[test]
    fn levels_that_are_in_the_way_are_left_out() {
        let mut case = Case::new("let mut v = vec![1]; let r = &mut v; let n = 5; r.push(n);");
        let before = levels(&case.cell, &case.plan.bound);
        case.tell(&["std::vec::Vec<i32>", "&mut std::vec::Vec<i32>", "i32"]);
        case.plan.bound[1].fate = Fate::Borrows(String::new());
        assert_eq!(case.mend("E0502", &["level(||"]), Mended::Changed);
        assert!(case.plan.levels.len() < before.len());
    }

    #[test]
    fn code_that_is_right_runs_whatever_it_costs() {
        let mut case = Case::new("let v = make(); let n = 2;");
        case.tell(&["std::vec::Vec<i32>", "i32"]);
        (case.plan.flat, case.plan.levels) = (true, BTreeSet::new());
        assert_eq!(case.mend("E0505", &["keep(0"]), Mended::Changed);
        assert!(matches!(case.fates()[..], [Fate::Gone(_), Fate::Stored]));
    }

    #[test]
    fn an_error_of_the_users_is_not_mended() {
        let mut case = Case::new("let n: i32 = \"text\"; n");
        assert_eq!(case.mend("E0308", &["\"text\""]), Mended::Not);
        assert_eq!(case.fates(), [&Fate::Stored]);
    }
}
