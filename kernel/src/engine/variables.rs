//! The variables of a notebook, as the kernel knows them.

/// A variable of the notebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub mutable: bool,
    /// The number of the cell that made it, as in `In [3]`.
    pub cell: u32,
    /// The path of its type, valid at the root of a cell; empty if it was never known.
    pub ty: String,
    pub state: State,
}

/// Whether a variable can be used, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the store and can be used.
    Stored,
    /// It could not outlive its cell, for this reason.
    Fleeting(String),
    /// The cell of this number moved it away.
    Moved(u32),
    /// The cell of this number redefined its type.
    Redefined(u32),
    /// The cell of this number defines an item of its name.
    Hidden(u32),
    /// It was lost when the cell of this number failed, in this way.
    Lost(u32, String),
}

impl Variable {
    /// Why it cannot be used; `None` if it can.
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

/// A variable that the cell binds, and its fate.
#[derive(Clone, Debug)]
pub struct Bound {
    pub name: String,
    pub mutable: bool,
    /// The statement after which it has a value.
    pub statement: usize,
    pub supposed: bool,
    pub fate: Fate,
    /// The type with which it is declared at the top, if it is a variable of an earlier cell that was moved away and gets a value again.
    pub declared: Option<String>,
}

/// What becomes of a variable at the end of its cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored, and this build tells its type.
    Stored,
    /// It is stored, as a value of this type.
    StoredAs(String),
    /// A statement takes it away. If the cell fails before, it is stored.
    TakenBy(usize),
    /// It is not stored, for this reason.
    Gone(State),
    /// It borrows, for this reason, so it is dropped before anything is stored.
    Borrows(String),
}

/// A variable of an earlier cell that this cell uses.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub name: String,
    pub mutable: bool,
    pub ty: String,
    pub fate: Fate,
}
