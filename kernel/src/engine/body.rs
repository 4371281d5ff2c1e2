//! A cell as the body of a function.
//!
//! Variables are locals of one function, so closures borrow them, guards hold them and references point to them as in any function. If the
//! variables of a `let` are to outlive the cell, the statements after it run one level deeper, in a closure that is called at once:
//!
//! ```text
//! let words = vec![…];
//! let end = frame.level(|| {          // catches a panic
//!     let n: i32 = "x".parse()?;      // the error leaves this level
//!     …
//! });
//! frame.keep(0, "words", words);      // so this happens whatever became of the rest
//! end
//! ```
//!
//! So variables that were bound before an error, a panic or a stop are kept; those after it were never bound. Inner levels have ended when
//! an outer variable is kept, so a reference or a guard in the cell does not cost its owner.
//!
//! A closure borrows what it uses for its whole body. The borrow checker may refuse that where a plain sequence of statements is fine (`let
//! r = &mut v; r.push(1); let n = 5; v.len()`). The compiler of cells ([`super::compiler`]) then leaves levels out.
//!
//! A variable that borrows from another is dropped before anything is stored. A build of the plain function, without levels and without
//! storing anything ([`Body::plain`]), tells which variables borrow and which errors are the user's own.
//!
//! If a later statement moves a variable, the closures between would move it too, and an error before that statement would lose it. So the
//! variable is copied out bit by bit at that statement instead, through a reference ([`Fate::TakenBy`]).

use std::collections::BTreeSet;
use std::ops::Range;

use super::built::{Built, Edit};
use super::cell::Cell;
use super::variables::{Bound, Fate, Loaded, State};

/// What a cell's function is made of.
pub struct Body<'a> {
    pub source: &'a str,
    pub cell: &'a Cell,
    pub bound: &'a [Bound],
    pub loaded: &'a [Loaded],
    /// Variables to forget when the cell starts.
    pub forgotten: &'a [String],
    /// Statements after which a level begins. The loaded variables have a level of their own.
    pub levels: &'a BTreeSet<usize>,
    /// Whether this build only tells the types of the variables and stores nothing.
    pub plain: bool,
    /// The number of this run, unlike that of any other run.
    pub run: u64,
    /// Names of the notebook's items that the cell mentions; `None` when there is no item.
    pub names: Option<&'a [String]>,
    /// Path of a module whose names every cell can use.
    pub prelude: Option<&'a str>,
    /// Crates that are imported by name, so that they win over what the prelude has under their names.
    pub crates: &'a [String],
    /// Path of the macro that shows a value, or `None` to show nothing.
    pub show: Option<&'a str>,
    /// Path of a function that waits for a future; for cells that use `.await`.
    pub block_on: Option<&'a str>,
    /// Expression that lives as long as the cell runs, such as a guard of a runtime.
    pub within: Option<&'a str>,
}

/// Code for rustc, and where in it variables are loaded and stored.
#[derive(Clone, Debug, Default)]
pub struct Woven {
    pub built: Built,
    places: Vec<(Range<usize>, Place)>,
}

/// What a piece of woven code does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Brings a loaded variable into the cell.
    Load(usize),
    /// Puts a loaded variable back.
    PutBack(usize),
    /// Stores a bound variable.
    Keep(usize),
    /// Makes rustc tell the type of a bound variable, where it is bound.
    Tell(usize),
    /// Drops a bound variable that borrows from another.
    Drop(usize),
    /// Opens the level after this statement.
    Level(usize),
    /// Opens the level of the loaded variables.
    First,
    /// Takes a variable that the next statement moves.
    Take,
}

impl Woven {
    /// What the code at a byte does.
    pub fn place(&self, byte: usize) -> Option<Place> {
        self.places.iter().find(|(range, _)| range.contains(&byte)).map(|(_, place)| *place)
    }

    fn add(&mut self, code: &str, at: usize, place: Option<Place>) {
        let start = self.built.text.len();
        self.built.insert(code, at);
        self.places.extend(place.map(|place| (start..self.built.text.len(), place)));
    }
}

/// Shows a value with its own `evcxr_display` if it has that method, and every other value as the WaveMesh library does.
pub const SHOW_RICHLY: &str = "::wavemesh_cell::show_richly";

/// The macro that shows a value by its `Debug` text; the type need not be known at once.
pub const SHOW_PLAINLY: &str = "::wavemesh_cell::show_plainly";

/// Replaces the trait of the same name in the library's prelude: an import by name wins over `*`.
const INSTEAD: &str = "use ::wavemesh_cell::show::Fallback as EvcxrDisplay;";

const STORE: &str = "::wavemesh_cell::store";

/// A stretch of statements between two levels.
struct Level {
    first: bool,
    statements: Range<usize>,
}

impl Body<'_> {
    pub fn weave(&self) -> Woven {
        let mut woven = Woven::default();
        let start = self.cell.statements.first().map_or(0, |statement| statement.range.start);
        // Code that can stand after the user's code stands there, so that the user's code starts near its own column.
        let mut head = format!("fn the_cell(__wm: &{STORE}::Frame) -> {STORE}::Outcome {{ ");
        if self.names.is_some() {
            head.push_str("use ::this_notebook::*; ");
            // Macros that `std` has too must be imported by name: a `*` does not win over the names around the function.
            self.prints(true).for_each(|name| head.push_str(&format!("use ::this_notebook::{name}; ")));
            if self.show == Some(SHOW_RICHLY) {
                head.push_str(&format!("{INSTEAD} ")); // the notebook's items may bring the library's prelude too
            }
        }
        if let Some(within) = self.within {
            head.push_str(&format!("let __wm_within = {within}; "));
        }
        if let Some(block_on) = self.block_on {
            head.push_str(&format!("{block_on}(__wm.level_async(async {{ "));
        }
        woven.add(&head, 0, None);
        for name in self.forgotten {
            woven.add(&format!("__wm.forget({name:?}); "), 0, None);
        }
        for (index, loaded) in self.loaded.iter().enumerate() {
            let Loaded { name, ty, .. } = loaded;
            if matches!(loaded.fate, Fate::Gone(State::Fleeting(_))) {
                continue;
            }
            let mutable = if loaded.mutable || matches!(loaded.fate, Fate::TakenBy(_)) { "mut " } else { "" };
            woven.add(&format!("let {mutable}{name} = __wm.load::<{ty}>({name:?}); "), 0, Some(Place::Load(index)));
        }
        let mut levels = Vec::new();
        let mut from = 0;
        for &statement in self.levels.iter().filter(|_| !self.plain) {
            levels.push(Level { first: false, statements: from..statement + 1 });
            from = statement + 1;
        }
        levels.push(Level { first: false, statements: from..self.cell.statements.len() });
        if !self.loaded.is_empty() && !self.plain {
            levels.insert(0, Level { first: true, statements: 0..0 });
        }
        for (index, level) in levels.iter().enumerate() {
            if level.statements.start == 0 && !level.first {
                self.declare(&mut woven);
            }
            for statement in level.statements.clone() {
                self.statement(statement, &mut woven);
            }
            if index + 1 < levels.len() {
                let place = if level.first { Place::First } else { Place::Level(level.statements.end - 1) };
                let open = if self.block_on.is_some() { "__wm.level_async(async {" } else { "__wm.level(|| {" };
                let at = self.end_of(level.statements.end, start);
                woven.add(&format!(" let __wm_end = {open}"), at, Some(place));
                woven.add(" ", at, None);
            }
        }
        let end = self.end_of(self.cell.statements.len(), start);
        for (index, level) in levels.iter().enumerate().rev() {
            let innermost = index + 1 == levels.len();
            if !innermost {
                woven.add(if self.block_on.is_some() { "}).await; " } else { "}); " }, end, None);
            }
            if self.plain {
                // It is only built, never run.
            } else if level.first {
                self.put_back(end, &mut woven);
            } else {
                self.keep(&level.statements, end, &mut woven);
            }
            woven.add(if innermost { DONE } else { "__wm_end " }, end, None);
        }
        woven.add(if self.block_on.is_some() { "})) " } else { "" }, end, None);
        self.finish(end, &mut woven);
        woven
    }

    /// The macros of `std` that cells replace: those that the notebook redefines, or else the others.
    fn prints(&self, anew: bool) -> impl Iterator<Item = &'static str> {
        let names = self.names.unwrap_or_default();
        ["dbg", "eprint", "eprintln", "print", "println"]
            .into_iter()
            .filter(move |name| names.iter().any(|known| known == name) == anew)
    }

    /// Adds the imports of the cell's function, and the function that the kernel calls.
    fn finish(&self, at: usize, woven: &mut Woven) {
        let run = self.run;
        let prints = self.prints(false).collect::<Vec<_>>().join(", ");
        let tail = format!(
            "}}\nuse ::wavemesh_cell::output::{{{prints}}};\n\
             #[unsafe(no_mangle)] pub static WAVEMESH_CELL_RUN: u64 = {run};\n\
             #[unsafe(no_mangle)] pub extern \"C\" fn run_user_code_{run}() {{ {STORE}::run(the_cell) }}\n"
        );
        woven.add(&tail, at, None);
        if let Some(prelude) = self.prelude {
            woven.add(&format!("use {prelude}::*;\n"), at, None);
        }
        if self.show == Some(SHOW_RICHLY) {
            woven.add(&format!("{INSTEAD}\n"), at, None);
        }
        for name in self.crates {
            woven.add(&format!("use ::{name};\n"), at, None);
        }
        // Imported by name, so that these win over the prelude.
        if let Some(names @ [_, ..]) = self.names {
            woven.add(&format!("use ::this_notebook::{{{}}};\n", names.join(", ")), at, None);
        }
    }

    fn end_of(&self, statements: usize, otherwise: usize) -> usize {
        let last = statements.checked_sub(1).and_then(|last| self.cell.statements.get(last));
        last.map_or(otherwise, |statement| statement.range.end)
    }

    /// Declares variables of earlier cells that this cell gives a value again.
    fn declare(&self, woven: &mut Woven) {
        for Bound { name, mutable, declared, .. } in self.bound {
            if let Some(ty) = declared {
                woven.add(&format!("let {}{name}: {ty}; ", if *mutable { "mut " } else { "" }), 0, None);
            }
        }
    }

    fn statement(&self, index: usize, woven: &mut Woven) {
        let statement = &self.cell.statements[index];
        woven.built.go_to(self.source, statement.range.start);
        // The plain function moves them as the user wrote it: a value taken through a reference would live, and borrow, to the end.
        let taken = |fate: &Fate| !self.plain && *fate == Fate::TakenBy(index);
        let loaded = self.loaded.iter().enumerate().filter(|(_, loaded)| taken(&loaded.fate));
        let loaded = loaded.map(|(number, loaded)| (self.key_of_loaded(number), &loaded.name, loaded.mutable));
        let bound = self.bound.iter().enumerate().filter(|(_, bound)| taken(&bound.fate));
        for (key, name, mutable) in loaded.chain(bound.map(|(key, bound)| (key, &bound.name, bound.mutable))) {
            let mutable = if mutable { "mut " } else { "" };
            let code = format!("let {mutable}{name} = unsafe {{ __wm.take_over({key}, &mut {name}) }}; ");
            woven.add(&code, statement.range.start, Some(Place::Take));
        }
        let mut edits = statement.edits.clone();
        if let (true, Some(show)) = (statement.shown, self.show) {
            edits.insert(0, Edit::insert(statement.range.start, format!("{show}!(")));
            edits.push(Edit::insert(statement.range.end, ");"));
        } else if statement.shown {
            edits.insert(0, Edit::insert(statement.range.start, "let _ = "));
            edits.push(Edit::insert(statement.range.end, ";"));
        }
        woven.built.push(self.source, statement.range.clone(), &edits);
        woven.add(" ", statement.range.end, None);
        for (number, Bound { name, .. }) in
            self.bound.iter().enumerate().filter(|(_, bound)| self.plain && bound.statement == index)
        {
            woven.add(&format!("::std::mem::drop(&{name}); "), statement.range.end, Some(Place::Tell(number)));
        }
        // The variable must be `mut` so that a later statement can take it through a reference.
        let later = |bound: &&Bound| {
            !self.plain && bound.statement == index && matches!(bound.fate, Fate::TakenBy(_)) && !bound.mutable
        };
        for Bound { name, .. } in self.bound.iter().filter(later) {
            woven.add(&format!("let mut {name} = {name}; "), statement.range.end, None);
        }
    }

    fn put_back(&self, at: usize, woven: &mut Woven) {
        for (index, Loaded { name, fate, .. }) in self.loaded.iter().enumerate() {
            let code = match fate {
                Fate::Stored | Fate::StoredAs(_) => format!("__wm.put_back({name:?}, {name}); "),
                Fate::TakenBy(_) => {
                    format!("__wm.put_back_unless_taken({}, {name:?}, {name}); ", self.key_of_loaded(index))
                }
                Fate::Gone(_) | Fate::Borrows(_) => continue,
            };
            woven.add(&code, at, Some(Place::PutBack(index)));
        }
    }

    fn keep(&self, statements: &Range<usize>, at: usize, woven: &mut Woven) {
        for (index, bound) in self.bound.iter().enumerate().rev() {
            if matches!(bound.fate, Fate::Borrows(_)) && statements.contains(&bound.statement) {
                woven.add(&format!("::std::mem::drop({}); ", bound.name), at, Some(Place::Drop(index)));
            }
        }
        for (index, bound) in self.bound.iter().enumerate().rev() {
            let Bound { name, fate, .. } = bound;
            // A variable that was taken is kept where it gets a value again. It is also kept where it was bound, in case it was not taken.
            let again = match fate {
                Fate::TakenBy(by) => statements.contains(by) && self.gets_value(name, *by),
                _ => false,
            };
            if again {
                woven.add(&format!("__wm.keep({index}, {name:?}, {name}); "), at, Some(Place::Keep(index)));
            }
            if !statements.contains(&bound.statement) {
                continue;
            }
            let code = match fate {
                // rustc tells the type in a warning of this `drop`.
                Fate::Stored => format!("{{ ::std::mem::drop(&{name}); __wm.keep({index}, {name:?}, {name}) }} "),
                Fate::StoredAs(ty) => format!("__wm.keep::<{ty}>({index}, {name:?}, {name}); "),
                Fate::TakenBy(_) => {
                    format!(
                        "{{ ::std::mem::drop(&{name}); __wm.keep_unless_taken({index}, {index}, {name:?}, {name}) }} "
                    )
                }
                Fate::Gone(_) | Fate::Borrows(_) => continue,
            };
            woven.add(&code, at, Some(Place::Keep(index)));
        }
        for (index, Loaded { name, fate, .. }) in self.loaded.iter().enumerate() {
            if let Fate::TakenBy(by) = fate
                && statements.contains(by)
                && self.gets_value(name, *by)
            {
                woven.add(&format!("__wm.put_back({name:?}, {name}); "), at, Some(Place::PutBack(index)));
            }
        }
    }

    /// The keys of bound variables are their numbers; loaded variables follow.
    fn key_of_loaded(&self, number: usize) -> usize {
        self.bound.len() + number
    }

    /// Whether this statement or a later one gives the variable a new value.
    fn gets_value(&self, name: &str, from: usize) -> bool {
        self.cell.statements[from..].iter().any(|statement| statement.assigned.contains(name))
    }
}

const DONE: &str = "::wavemesh_cell::store::done() ";

/// Where levels begin at first: after each statement that binds a variable, except the last statement.
pub fn levels(cell: &Cell, bound: &[Bound]) -> BTreeSet<usize> {
    // More levels would make the compiler slow. A cell with more variables keeps the first ones.
    const MOST: usize = 40;
    let behind: BTreeSet<usize> = bound
        .iter()
        .filter(|bound| !matches!(bound.fate, Fate::Gone(_) | Fate::Borrows(_)))
        .map(|bound| bound.statement)
        .filter(|&statement| statement + 1 < cell.statements.len())
        .collect();
    // A closure cannot give a first value to a variable outside it.
    let without: Vec<Range<usize>> = cell
        .bindings
        .iter()
        .filter(|binding| binding.statement != usize::MAX)
        .filter_map(|binding| Some(declared_at(cell, binding.statement, &binding.name)?..binding.statement))
        .collect();
    behind.into_iter().filter(|statement| !without.iter().any(|range| range.contains(statement))).take(MOST).collect()
}

/// The statement that only declares a variable to which a later statement gives its value.
fn declared_at(cell: &Cell, statement: usize, name: &str) -> Option<usize> {
    cell.statements.get(statement)?.assigned.contains(name).then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    impl<'a> Body<'a> {
        /// The body of a cell of a new notebook.
        pub fn for_tests(source: &'a str, cell: &'a Cell, bound: &'a [Bound], levels: &'a BTreeSet<usize>) -> Self {
            Body {
                source,
                cell,
                bound,
                loaded: &[],
                forgotten: &[],
                levels,
                plain: false,
                run: 7,
                names: None,
                prelude: None,
                crates: &[],
                show: Some("show"),
                block_on: None,
                within: None,
            }
        }
    }

    fn woven(source: &str) -> Woven {
        let cell = Cell::parse(source, Path::new("/"), &|_| None);
        let bound: Vec<Bound> = bounds(&cell);
        Body::for_tests(source, &cell, &bound, &levels(&cell, &bound)).weave()
    }

    fn bounds(cell: &Cell) -> Vec<Bound> {
        let bound = cell.bindings.iter().map(|binding| Bound {
            name: binding.name.clone(),
            mutable: binding.mutable,
            statement: binding.statement,
            supposed: binding.supposed,
            fate: Fate::Stored,
            declared: None,
        });
        bound.collect()
    }

    #[test]
    fn what_follows_a_variable_runs_one_level_deeper() {
        let woven = woven("let x = 1;\nlet y = x;\ny");
        let (_, body) = woven.built.text.split_once("Outcome { ").unwrap_or_default();
        let (body, _) = body.split_once("}\nuse ").unwrap_or_default();
        assert_eq!(
            body,
            "let x = 1;  let __wm_end = __wm.level(|| { \nlet y = x;  let __wm_end = __wm.level(|| { \nshow!(y); \
             ::wavemesh_cell::store::done() }); { ::std::mem::drop(&y); __wm.keep(1, \"y\", y) } __wm_end }); \
             { ::std::mem::drop(&x); __wm.keep(0, \"x\", x) } __wm_end "
        );
        let kept = woven.built.text.find("::std::mem::drop(&x)");
        assert_eq!(kept.and_then(|at| woven.place(at)), Some(Place::Keep(0)));
    }

    #[test]
    fn the_plain_function_has_no_levels_and_stores_nothing() {
        let source = "let x = 1;\nlet y = x;\ny";
        let cell = Cell::parse(source, Path::new("/"), &|_| None);
        let bound = bounds(&cell);
        let levels = levels(&cell, &bound);
        let text = Body { plain: true, ..Body::for_tests(source, &cell, &bound, &levels) }.weave().built.text;
        let (_, text) = text.split_once("Outcome { ").unwrap_or_default();
        assert!(text.starts_with("let x = 1; ::std::mem::drop(&x); \nlet y = x; ::std::mem::drop(&y); \nshow!(y); ::wavemesh_cell::store::done() }"), "{text}");
    }

    #[test]
    fn the_plain_function_moves_what_a_statement_takes() {
        let source = "let x = make();\ntake(x);";
        let cell = Cell::parse(source, Path::new("/"), &|_| None);
        let mut bound = bounds(&cell);
        bound[0].fate = Fate::TakenBy(1);
        let levels = levels(&cell, &bound);
        let text = |plain| Body { plain, ..Body::for_tests(source, &cell, &bound, &levels) }.weave().built.text;
        assert!(text(false).contains("take_over(0, &mut x)"));
        assert!(text(true).contains("let x = make(); ::std::mem::drop(&x); \ntake(x); ::wavemesh_cell"));
    }

    #[test]
    fn lines_are_the_users() {
        let source = "\n\nlet x = 1;\n// two\nlet z =\n  x;\nline!()";
        let text = woven(source).built.text;
        for (line, starts) in [(2, "let z ="), (6, "show!(line!())")] {
            let at = text.lines().position(|text| text.starts_with(starts));
            assert_eq!(
                at,
                source
                    .lines()
                    .position(|text| text.starts_with(starts.trim_start_matches("show!(").trim_end_matches(')'))),
                "{line}"
            );
        }
    }

    #[test]
    fn a_variable_without_a_value_has_no_level_before_it_gets_one() {
        let text = woven("let late; let a = 1; late = 5; late").built.text;
        assert!(text.contains("let late; let a = 1; late = 5;  let __wm_end"), "{text}");
    }
}
