//! What a notebook has, and what becomes of it when a cell has run. This is bookkeeping only, so it can be tested without a compiler.

use std::collections::BTreeMap;
use std::sync::Arc;

use wavemesh_cell::protocol::Report;

use super::names::{last_name, own_names};
use crate::engine::cell::{Cell, Run, words};
use crate::engine::definitions::Definitions;
use crate::engine::deps::Dependencies;
use crate::engine::rustc::Build;
use crate::engine::variables::{Bound, Fate, Loaded, State as VariableState, Variable};

/// The state of a notebook, as its compiler knows it.
#[derive(Default)]
pub struct State {
    /// Variables of earlier cells, by name; those that are gone are included, with the reason.
    pub variables: BTreeMap<String, Variable>,
    pub definitions: Definitions,
    /// Variables that are still in the store but must not be used any more.
    pub forgotten: Vec<String>,
    /// What the running cell binds and has loaded.
    pub running: Option<Running>,
    pub runs: Vec<Arc<Run>>,
    pub dependencies: Dependencies,
    pub builds: u64,
    /// This cell's builds so far.
    pub times: Vec<Build>,
    pub offline: bool,
}

/// What a running cell binds and has loaded.
pub struct Running {
    pub number: u32,
    pub bound: Vec<Bound>,
    pub types: BTreeMap<usize, String>,
    pub loaded: Vec<Loaded>,
}

impl State {
    /// Variables that later cells can use.
    pub fn stored(&self) -> impl Iterator<Item = &Variable> {
        self.variables.values().filter(|variable| variable.state == VariableState::Stored)
    }

    /// Variables whose type changes in `new`: the store would read the old value with the new layout.
    pub fn reshaped_in(&self, before: &Definitions, new: &Definitions) -> Vec<String> {
        let reshaped = before.reshaped_in(new);
        let rests = |variable: &&Variable| own_names(&variable.ty).any(|name| reshaped.contains(name));
        self.stored().filter(rests).map(|variable| variable.name.clone()).collect()
    }

    /// Variables whose name the cell now gives to an item, unless that item was defined in the same way before.
    pub fn hidden_by(&self, cell: &Cell, before: &Definitions, new: &Definitions) -> Vec<String> {
        let values = cell.items.iter().filter(|item| item.is_value).flat_map(|item| &item.names);
        let mut names: Vec<&String> = values.filter(|name| self.stored().any(|known| known.name == **name)).collect();
        names.retain(|name| !cell.bindings.iter().any(|binding| binding.name == **name));
        if names.is_empty() {
            return Vec::new();
        }
        let changed = before.changed_to(new);
        names.into_iter().filter(|name| changed.contains(*name)).cloned().collect()
    }

    /// Notes about variables that keep old definitions: a trait object keeps its impl; a function pointer or a boxed closure keeps what its
    /// cell named.
    pub fn outdated_since(&self, before: &Definitions) -> Vec<String> {
        let old = before.outdated_in(&self.definitions);
        let told = |variable: &Variable| {
            let objects: Vec<&str> = variable.ty.split("dyn ").skip(1).map(last_name).collect();
            if let Some((_, title)) = old.impls.iter().find(|(of, _)| objects.contains(&of.as_str())) {
                return Some(format!("note: `{}` was made before and keeps the old `{title}`.", variable.name));
            }
            let calls =
                variable.ty.contains("fn(") || objects.iter().any(|name| ["Fn", "FnMut", "FnOnce"].contains(name));
            // The cell itself is found before the files that it brought in.
            let run = self.runs.iter().find(|run| calls && run.number == variable.cell)?;
            let name = words(&run.source).find(|word| old.values.contains(*word))?;
            Some(format!("note: `{}` was made before and keeps the old `{name}`.", variable.name))
        };
        self.stored().filter_map(told).collect()
    }

    /// Takes over the definitions of a compiled cell, and marks the variables in `lost` as lost.
    pub fn define(&mut self, definitions: Definitions, lost: Vec<(String, VariableState)>) {
        for (name, state) in lost {
            if let Some(variable) = self.variables.get_mut(&name) {
                variable.state = state;
            }
            // A cell that is about to run forgets them itself.
            if self.running.is_none() {
                self.forgotten.push(name);
            }
        }
        if self.running.is_some() {
            self.forgotten.clear();
        }
        self.definitions = definitions;
    }

    /// Handles crates that were rebuilt, each for a reason: their types are new, so values of the old types are lost. Returns notes for the
    /// user.
    pub fn replace_crates(&mut self, number: u32, replaced: &[(String, String)]) -> Vec<String> {
        let is_replaced = |word: &str| replaced.iter().any(|(name, _)| name == word);
        let mut lost = Vec::new();
        for variable in self.variables.values_mut() {
            if variable.state == VariableState::Stored && self.definitions.rests_on(&variable.ty, &is_replaced) {
                variable.state = VariableState::Lost(number, "its crate was rebuilt".to_owned());
                lost.push(variable.name.clone());
            }
        }
        let named: Vec<String> = lost.iter().map(|name| format!("`{name}`")).collect();
        let cost = if named.is_empty() { String::new() } else { format!(" Lost with it: {}.", named.join(", ")) };
        self.forgotten.extend(lost);
        // The definitions depend on the crates that were replaced.
        if !replaced.is_empty() {
            self.definitions.start_anew();
        }
        let told = replaced.iter();
        told.map(|(name, why)| format!("note: {name} is rebuilt: {why}. Its statics start again.{cost}")).collect()
    }

    /// Takes over the variables of a cell that ran: those that it stored exist now; those that it loaded and did not put back are gone.
    /// `ended_well` is false if an error or a stop cut it short. Returns notes for the user.
    pub fn cell_ran(&mut self, reports: &[Report], ended_well: bool) -> Vec<String> {
        let Some(Running { number, bound, types, loaded }) = self.running.take() else { return Vec::new() };
        self.forgotten.clear();
        let stored: BTreeMap<&str, Option<usize>> = reports
            .iter()
            .filter_map(|report| match report {
                Report::Variable { name, number, .. } => Some((name.as_str(), *number)),
                _ => None,
            })
            .collect();
        let mut notes = Vec::new();
        for loaded in loaded.iter().filter(|loaded| !stored.contains_key(loaded.name.as_str())) {
            self.was_not_put_back(loaded, number, ended_well, &mut notes);
        }
        for (index, one) in bound.iter().enumerate() {
            let ty = types.get(&index).cloned().unwrap_or_default();
            let is_newest = !bound[index + 1..].iter().any(|later| later.name == one.name);
            match stored.get(one.name.as_str()) {
                Some(&by) if by == Some(index) => self.bind(one, number, ty, VariableState::Stored),
                None if is_newest => self.was_not_stored(one, number, ty, ended_well, &mut notes),
                _ => {}
            }
        }
        notes
    }

    fn bind(&mut self, bound: &Bound, cell: u32, ty: String, state: VariableState) {
        let Bound { name, mutable, .. } = bound;
        let variable = Variable { name: name.clone(), mutable: *mutable, cell, ty, state };
        self.variables.insert(name.clone(), variable);
    }

    fn was_not_put_back(&mut self, loaded: &Loaded, number: u32, ended_well: bool, notes: &mut Vec<String>) {
        let Loaded { name, fate, .. } = loaded;
        let how = "the cell was using it when it was left behind";
        let gone = match fate {
            Fate::TakenBy(_) => VariableState::Moved(number),
            Fate::Gone(state) => state.clone(),
            Fate::Borrows(why) => VariableState::Fleeting(why.clone()),
            Fate::Stored | Fate::StoredAs(_) => VariableState::Lost(number, how.to_owned()),
        };
        if !ended_well && !matches!(gone, VariableState::Fleeting(_)) {
            notes.push(match &gone {
                VariableState::Moved(_) => format!("note: `{name}` is gone: the cell had moved it away."),
                _ => format!("note: `{name}` is lost: {how}."),
            });
        }
        if let Some(variable) = self.variables.get_mut(name) {
            variable.state = gone;
        }
    }

    fn was_not_stored(&mut self, bound: &Bound, number: u32, ty: String, ended_well: bool, notes: &mut Vec<String>) {
        let Bound { name, fate, supposed, .. } = bound;
        if *supposed && matches!(fate, Fate::Gone(_)) {
            return;
        }
        let gone = match fate {
            Fate::Gone(state) => state.clone(),
            Fate::Borrows(why) => VariableState::Fleeting(why.clone()),
            Fate::TakenBy(_) => VariableState::Moved(number),
            Fate::Stored | Fate::StoredAs(_) if ended_well => return,
            Fate::Stored | Fate::StoredAs(_) => {
                VariableState::Lost(number, "the cell failed before it was stored".to_owned())
            }
        };
        // A cell that failed may not have reached the statement that binds it.
        if !ended_well && self.stored().any(|known| known.name == *name) {
            return;
        }
        if let (VariableState::Fleeting(reason), true) = (&gone, ended_well) {
            notes.push(format!("note: `{name}` lives in this cell only: {reason}."));
        }
        self.bind(bound, number, ty, gone);
    }

    /// Notes that the process that held the variables is gone.
    pub fn lose_all(&mut self, number: u32) {
        self.running = None;
        self.forgotten.clear();
        for variable in self.variables.values_mut().filter(|variable| variable.state == VariableState::Stored) {
            variable.state = VariableState::Lost(number, "its process ended".to_owned());
        }
    }

    /// Forgets variables and definitions after `:clear`.
    pub fn forget_everything(&mut self) {
        self.variables.clear();
        self.forgotten.clear();
        self.running = None;
        self.definitions = Definitions::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(name: &str, fate: Fate) -> Bound {
        Bound { name: name.to_owned(), mutable: false, statement: 0, supposed: false, fate, declared: None }
    }

    fn stores(name: &str, number: Option<usize>) -> Report {
        Report::Variable { name: name.to_owned(), number, bytes: 4, shape: String::new(), type_name: "i32".to_owned() }
    }

    fn ran(state: &mut State, bound: Vec<Bound>, loaded: Vec<Loaded>, reports: &[Report], well: bool) -> Vec<String> {
        let types = (0..bound.len()).map(|index| (index, "i32".to_owned())).collect();
        state.running = Some(Running { number: 3, bound, types, loaded });
        state.cell_ran(reports, well)
    }

    fn state_of<'a>(state: &'a State, name: &str) -> Option<&'a VariableState> {
        state.variables.get(name).map(|variable| &variable.state)
    }

    #[test]
    fn what_a_cell_has_stored_is_there_and_what_it_did_not_store_is_told() {
        let mut state = State::default();
        let closure = Fate::Gone(VariableState::Fleeting("a closure".to_owned()));
        let all = vec![bound("kept", Fate::Stored), bound("f", closure)];
        let notes = ran(&mut state, all, Vec::new(), &[stores("kept", Some(0))], true);
        assert_eq!(notes, ["note: `f` lives in this cell only: a closure."]);
        assert_eq!(state_of(&state, "kept"), Some(&VariableState::Stored));
        assert_eq!(state.stored().map(|variable| variable.ty.as_str()).collect::<Vec<_>>(), ["i32"]);
        assert!(matches!(state_of(&state, "f"), Some(VariableState::Fleeting(_))));
    }

    #[test]
    fn what_a_failed_cell_held_is_lost_and_what_it_never_bound_is_as_before() {
        let mut state = State::default();
        ran(
            &mut state,
            vec![bound("a", Fate::Stored), bound("b", Fate::Stored)],
            Vec::new(),
            &[stores("a", Some(0)), stores("b", Some(1))],
            true,
        );
        let loaded = Loaded { name: "a".to_owned(), mutable: false, ty: "i32".to_owned(), fate: Fate::Stored };
        let notes = ran(&mut state, vec![bound("b", Fate::Stored), bound("c", Fate::Stored)], vec![loaded], &[], false);
        assert_eq!(notes, ["note: `a` is lost: the cell was using it when it was left behind."]);
        assert_eq!(state_of(&state, "b"), Some(&VariableState::Stored));
        assert!(matches!(state_of(&state, "c"), Some(VariableState::Lost(3, _))));
    }

    #[test]
    fn of_two_variables_of_a_name_the_newer_counts() {
        let mut state = State::default();
        let twice = vec![bound("x", Fate::Stored), bound("x", Fate::Gone(VariableState::Moved(3)))];
        ran(&mut state, twice, Vec::new(), &[], true);
        assert_eq!(state_of(&state, "x"), Some(&VariableState::Moved(3)));
    }

    #[test]
    fn values_of_a_crate_that_is_built_anew_are_lost() {
        let mut state = State::default();
        ran(&mut state, vec![bound("n", Fate::Stored)], Vec::new(), &[stores("n", Some(0))], true);
        let tool = Variable {
            name: "held".into(),
            mutable: false,
            cell: 1,
            ty: "tool::Tool".into(),
            state: VariableState::Stored,
        };
        state.variables.insert("held".to_owned(), tool);
        let notes = state.replace_crates(4, &[("tool".to_owned(), "its source changed".to_owned())]);
        assert_eq!(
            notes,
            ["note: tool is rebuilt: its source changed. Its statics start again. Lost with it: `held`."]
        );
        assert_eq!((state.stored().count(), &state.forgotten[..]), (1, &["held".to_owned()][..]));
        state.lose_all(5);
        assert_eq!(state.stored().count(), 0);
    }
}
