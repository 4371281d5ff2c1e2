//! The plan for building a cell: what is known before rustc has seen it, and the types that rustc tells.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Order;
use super::names::{BUILT_AS, CALLED};
use super::state::{Running, State};
use crate::engine::body::{Place, Woven, levels};
use crate::engine::cell::Cell;
use crate::engine::rustc::spans;
use crate::engine::variables::{Bound, Fate, Loaded, State as VariableState, Variable};

/// The plan for building a cell, as far as it is known.
pub struct Plan {
    pub bound: Vec<Bound>,
    pub loaded: Vec<Loaded>,
    pub levels: BTreeSet<usize>,
    /// The types of bound variables, by their number.
    types: BTreeMap<usize, String>,
    /// Bound variables that borrow but cannot be dropped at the end: the cell uses again what they borrow, or moves them in this statement.
    pub over: BTreeMap<usize, Option<usize>>,
    /// Whether levels were left out, so that errors are reported for the code as the user wrote it.
    pub flat: bool,
    /// Whether a separate build has found the types, so that they are known although other builds fail.
    pub typed: bool,
    /// Whether a function shows the last value: its type is not known at the place where a method would be looked for.
    pub shown_plainly: bool,
}

/// Why a closure is not stored.
const CLOSURE: &str = "it is a closure or holds one, whose type has no name. To keep it, give it one: \
                       `let f: Box<dyn Fn(i32) -> i32> = Box::new(…)`";

/// Why the lock of a standard stream is not stored.
const LOCK: &str = "it locks a standard stream, which other cells and threads need; lock it in each cell that uses it";

impl Plan {
    /// The plan before the first build. `lost` are variables that this cell makes unusable.
    pub fn new(order: &Order, cell: &Cell, lost: &[String], state: &State) -> Plan {
        let mut bound: Vec<Bound> = cell
            .bindings
            .iter()
            .map(|binding| Bound {
                name: binding.name.clone(),
                mutable: binding.mutable,
                statement: binding.statement,
                supposed: binding.supposed,
                fate: if binding.statement == usize::MAX {
                    Fate::Gone(VariableState::Fleeting("it was not given a value".to_owned()))
                } else if binding.closure {
                    Fate::Gone(VariableState::Fleeting(CLOSURE.to_owned()))
                } else {
                    Fate::Stored
                },
                declared: None,
            })
            .collect();
        let mut loaded = Vec::new();
        for variable in state.variables.values().filter(|variable| cell.wants(&variable.name)) {
            let Variable { name, mutable, ty, state, .. } = variable.clone();
            if lost.contains(&name) {
                continue;
            }
            if state == VariableState::Stored {
                loaded.push(Loaded { name, mutable, ty, fate: Fate::Stored });
            } else if let (VariableState::Moved(_) | VariableState::Lost(..), Some(statement), false) =
                (&state, cell.starts_with_value(&name, order.source), ty.is_empty())
            {
                // The cell gives it a value again.
                let fate = Fate::Stored;
                bound.push(Bound { name, mutable, statement, supposed: false, fate, declared: Some(ty) });
            }
        }
        let levels = levels(cell, &bound);
        Plan {
            bound,
            loaded,
            levels,
            types: BTreeMap::new(),
            over: BTreeMap::new(),
            flat: false,
            typed: false,
            shown_plainly: false,
        }
    }

    /// What to remember of this plan until the cell has run.
    pub fn running(self, number: u32) -> Running {
        Running { number, bound: self.bound, types: self.types, loaded: self.loaded }
    }

    /// Reads the types of the stored variables from rustc's warnings. Returns true if the cell must be built once more.
    pub fn note_types(&mut self, messages: &[Value], woven: &Woven) -> bool {
        let mut again = false;
        for message in messages.iter().filter(|message| message["code"]["code"] == "dropping_references") {
            let spans = spans(message);
            let told = spans.iter().find_map(|span| place(span, woven));
            let Some(Place::Keep(index) | Place::Tell(index)) = told else { continue };
            let label = spans.iter().find_map(|span| span["label"].as_str()?.strip_prefix("argument has type `&"));
            let Some(ty) = label.and_then(|label| label.strip_suffix('`')) else { continue };
            let ty = ty.replace(BUILT_AS, CALLED);
            if let Some((function, _)) = ty.split_once(" {").filter(|(function, _)| function.contains("fn(")) {
                // The type of a function item has no name; that of a pointer to it has.
                again = true;
                self.bound[index].fate = Fate::StoredAs(function.to_owned());
                self.types.insert(index, function.to_owned());
            } else if ty.contains('{') || ty.contains("impl ") || locks_a_stream(&ty) {
                let what = match () {
                    () if locks_a_stream(&ty) => LOCK,
                    () if ty.contains("{closure") => CLOSURE,
                    () => "its type has no name",
                };
                // The value must not stay in the store, where nothing could use it.
                again = !ty.contains("{closure");
                self.bound[index].fate = Fate::Gone(VariableState::Fleeting(what.to_owned()));
            } else {
                self.types.insert(index, ty);
            }
        }
        again
    }

    /// Whether a variable of this type may borrow from another.
    pub fn may_borrow(&self, index: usize) -> bool {
        let borrows = |ty: &String| ty.contains(['&', '\'']) || ty.contains("dyn ");
        self.types.get(&index).is_none_or(borrows)
    }

    /// Whether a variable is a plain reference, for which dropping does nothing.
    pub fn is_reference(&self, index: usize) -> bool {
        self.types.get(&index).is_some_and(|ty| ty.starts_with('&'))
    }

    /// The levels for the current fates, without those that were left out already.
    pub fn levels_of(&self, cell: &Cell) -> BTreeSet<usize> {
        let wanted = levels(cell, &self.bound);
        if self.flat { BTreeSet::new() } else { wanted.intersection(&self.levels).copied().collect() }
    }
}

/// What the woven code does where a span starts.
pub fn place(span: &Value, woven: &Woven) -> Option<Place> {
    woven.place(span["byte_start"].as_u64()?.try_into().ok()?)
}

fn locks_a_stream(ty: &str) -> bool {
    ["std::io::StdoutLock<", "std::io::StderrLock<", "std::io::StdinLock<"].iter().any(|lock| ty.contains(lock))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::engine::body::Body;
    use crate::engine::grammar::program::Program;

    impl Plan {
        /// The plan of a cell of a new notebook.
        pub fn for_tests(cell: &Cell) -> Plan {
            let program = Program::default();
            let order = Order {
                source: "",
                number: 1,
                id: 1,
                opt_level: "0",
                show: false,
                repeat: false,
                program: &program,
                cell: None,
                deleted: &[],
                crates_compiled: &|_| (),
            };
            Plan::new(&order, cell, &[], &State::default())
        }

        /// The types of its variables, in order.
        pub fn know(&mut self, types: impl Iterator<Item = String>) {
            self.types = types.enumerate().collect();
            self.typed = true;
        }
    }

    /// What becomes of the one variable of a cell if rustc reports this type.
    fn fate_of(told: &str) -> (Fate, Option<String>, bool) {
        let source = "let x = make();";
        let cell = Cell::parse(source, Path::new("/"), &|_| None);
        let mut plan = Plan::for_tests(&cell);
        let woven = Body::for_tests(source, &cell, &plan.bound, &plan.levels).weave();
        let at = woven.built.text.find("::std::mem::drop(&x)").unwrap_or_default();
        let span = json!({"byte_start": at, "byte_end": at + 1, "is_primary": false, "label": format!("argument has type `&{told}`")});
        let message = json!({"level": "warning", "code": {"code": "dropping_references"}, "spans": [span]});
        let again = plan.note_types(&[message], &woven);
        (plan.bound[0].fate.clone(), plan.types.get(&0).cloned(), again)
    }

    #[test]
    fn the_type_of_a_variable_is_what_rustc_tells() {
        assert_eq!(fate_of("wavemesh_dylib::Mesh"), (Fate::Stored, Some("wavemesh::Mesh".to_owned()), false));
        let pointer = "fn(i32) -> i32".to_owned();
        assert_eq!(
            fate_of("fn(i32) -> i32 {this_notebook::double}"),
            (Fate::StoredAs(pointer.clone()), Some(pointer), true)
        );
    }

    #[test]
    fn a_type_without_a_name_is_not_stored() {
        let lock = "std::io::BufWriter<std::io::StdoutLock<'_>>";
        for (told, again) in
            [(lock, true), ("std::iter::Map<I, {closure@In [1]:1:2: 1:5}>", false), ("impl std::fmt::Debug", true)]
        {
            let (fate, ty, built_again) = fate_of(told);
            assert!(matches!(fate, Fate::Gone(VariableState::Fleeting(_))), "{told}");
            assert_eq!((ty, built_again), (None, again), "{told}");
        }
    }
}
