//! The variables of a notebook, as far as the kernel knows them.

/// A variable of the notebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub mutable: bool,
    /// The number of the cell that made it, as in `In [3]`.
    pub cell: u32,
    /// The path of its type, valid at the root of a cell; empty when it was never known.
    pub ty: String,
    pub state: State,
}

/// Whether a variable can be used, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the store.
    Stored,
    /// It could not outlive its cell; why.
    Fleeting(String),
    /// The cell of this number moved it away.
    Moved(u32),
    /// The cell of this number defined its type anew.
    Redefined(u32),
    /// The cell of this number defines an item of its name.
    Hidden(u32),
    /// It went with the error of the cell of this number; how.
    Lost(u32, String),
}

impl Variable {
    /// Why it cannot be used.
    pub fn told(&self) -> Option<String> {
        let Variable { name, cell, .. } = self;
        match &self.state {
            State::Stored => None,
            State::Fleeting(reason) => Some(format!("`{name}` lived only in cell [{cell}]: {reason}.")),
            State::Moved(by) => Some(format!(
                "`{name}` was moved away in cell [{by}]. To keep it, pass `&{name}` or `{name}.clone()` there."
            )),
            State::Redefined(by) => Some(format!("`{name}` is lost, because cell [{by}] defines its type again.")),
            State::Hidden(by) => Some(format!("`{name}` is lost, because cell [{by}] defines an item of its name.")),
            State::Lost(by, how) => Some(format!("`{name}` is lost since cell [{by}]: {how}.")),
        }
    }
}

/// A variable that the cell binds, and what is to become of it.
#[derive(Clone, Debug)]
pub struct Bound {
    pub name: String,
    pub mutable: bool,
    /// The statement after which it has a value.
    pub statement: usize,
    pub supposed: bool,
    pub fate: Fate,
    /// Declared at the top, with this type: a variable of an earlier cell that was moved away and gets a value again.
    pub declared: Option<String>,
}

/// What becomes of a variable at the end of its cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored; this build tells its type.
    Stored,
    /// It is stored, as a value of this type.
    StoredAs(String),
    /// A statement takes it away; up to there it is stored when the cell fails.
    TakenBy(usize),
    /// It is stored nowhere; why.
    Gone(State),
    /// It borrows, so it is dropped before anything is stored; why, in words.
    Borrows(String),
}

/// A variable of an earlier cell that comes into this one.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub name: String,
    pub mutable: bool,
    pub ty: String,
    pub fate: Fate,
}
