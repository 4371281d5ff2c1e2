//! The notebook's current definitions: the items of its cells, the newest for each key, as one crate.
//!
//! All items form one crate, not one per cell, because an `impl` may be in another cell than its type (orphan rules). When an item changes,
//! the crate is compiled again as a dynamic library with the same crate name and metadata. So a type stays the same type (`TypeId`) from
//! version to version, while every cell is linked with the version of its time and finds the symbols of that version first. Statics keep
//! the home of their first version ([`super::statics`]).
//!
//! A cell that runs again replaces what it defined. It is recognised by its `cellId`, or else by the keys of its items. An item that no
//! longer compiles because another cell changed something it depends on is stale: it is left out until it compiles again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::built::{Built, Edit};
use super::cell::{Run, words};
use super::grammar::program::Test;
use super::items::{self, Item};
use super::statics::Static;

/// The items of the notebook. A copy is cheap, so the changes of a cell are tried on a copy.
#[derive(Clone, Default)]
pub struct Definitions {
    /// The cells that define something, oldest first.
    cells: Vec<Cell>,
    homes: BTreeMap<String, Home>,
    /// The compiled version of these items; `None` if there are no items or they changed.
    pub library: Option<Arc<Library>>,
}

/// A compiled version.
#[derive(Debug)]
pub struct Library {
    pub file: PathBuf,
}

#[derive(Clone)]
struct Cell {
    run: Arc<Run>,
    /// The id that the frontend gives the cell.
    id: Option<String>,
    items: Vec<Live>,
}

#[derive(Clone)]
struct Live {
    item: Arc<Item>,
    /// Indices of the methods that a newer cell defines; these are left out.
    replaced: BTreeSet<usize>,
    stale: Option<Stale>,
    /// Why it was left out before the cell that is being compiled now.
    was_stale: Option<Stale>,
}

/// Why an item is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The compiler's first error message.
    pub reason: String,
    /// The number of the cell that caused it.
    pub by: u32,
}

/// An item that is left out, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub title: String,
    pub names: Vec<String>,
    /// The number of its cell.
    pub cell: u32,
    pub stale: Stale,
}

impl Left {
    /// The message when it becomes stale.
    pub fn told(&self) -> String {
        format!(
            "note: `{}` of cell [{}] no longer compiles since cell [{}]: {}. It is left out until it does.",
            self.title, self.cell, self.stale.by, self.stale.reason
        )
    }

    /// The message when the user names it.
    pub fn told_on_use(&self) -> String {
        format!(
            "`{}` is stale: cell [{}] defines it, but it no longer compiles since cell [{}]: {}.",
            self.title, self.cell, self.stale.by, self.stale.reason
        )
    }
}

/// Old definitions that existing values still use.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outdated {
    /// Impls of traits: the trait's name, and how messages call the impl.
    pub impls: Vec<(String, String)>,
    /// Functions and other values, by name.
    pub values: BTreeSet<String>,
}

/// Where a static lives: the version that defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    symbol: String,
    version: u64,
    file: PathBuf,
    signature: String,
}

/// The text of the crate.
pub struct Source {
    /// Cells, and the code of each of their pages, in order.
    pub files: Vec<(Arc<Run>, Vec<Built>)>,
    /// Earlier versions that are the home of some static.
    pub homes: BTreeSet<PathBuf>,
    new_homes: BTreeMap<String, Home>,
    /// Statics that start again with their initial value, by their path.
    pub anew: Vec<String>,
}

impl Definitions {
    /// These definitions with those of `run`, which replace what the cell defined before and all items with the same keys. A cell that
    /// commands divide has one definition for each part, `id`, `id#1` and so on; the first part replaces all of them. `deleted` are cells
    /// that the frontend has removed. Stale items that might compile again are tried again.
    pub fn with(&self, run: &Arc<Run>, items: Vec<Item>, id: Option<&str>, deleted: &[String]) -> Definitions {
        let mut new = self.clone();
        new.library = None;
        let is_of =
            |known: &str, id: &str| known == id || known.strip_prefix(id).is_some_and(|rest| rest.starts_with('#'));
        let gone =
            |known: &str| id.iter().copied().chain(deleted.iter().map(String::as_str)).any(|id| is_of(known, id));
        new.cells.retain(|cell| !cell.id.as_deref().is_some_and(gone));
        for item in &items {
            for cell in &mut new.cells {
                for live in &mut cell.items {
                    if item.members.is_empty() && item.key == live.item.key
                        || !shared(&item.names, &live.item.names).is_empty()
                    {
                        live.replaced.insert(usize::MAX);
                    } else if item.key == live.item.key {
                        let members = live.item.members.iter().enumerate();
                        let taken = members.filter(|(_, (name, _))| item.members.iter().any(|(new, _)| new == name));
                        live.replaced.extend(taken.map(|(index, _)| index));
                    }
                }
                cell.items.retain(|live| !live.replaced.contains(&usize::MAX));
            }
        }
        // If two items of this cell have the same key, the later one counts.
        let mut own: Vec<Live> = Vec::new();
        for item in items {
            let is_macro_call = item.names.is_empty() && item.members.is_empty();
            own.retain(|live| is_macro_call || live.item.key != item.key || !item.members.is_empty());
            own.push(Live { item: Arc::new(item), replaced: BTreeSet::new(), stale: None, was_stale: None });
        }
        if !own.is_empty() {
            new.cells.push(Cell { run: Arc::clone(run), id: id.map(str::to_owned), items: own });
        }
        new.cells.retain(|cell| !cell.items.is_empty());
        let changed = self.changed_to(&new);
        for live in new.cells.iter_mut().flat_map(|cell| &mut cell.items) {
            if let Some(stale) = &live.stale
                && words(&live.item.whole).chain(words(&stale.reason)).any(|word| changed.contains(word))
            {
                live.was_stale = live.stale.take();
            }
        }
        new.forget_homes();
        new
    }

    /// Whether `other` has the same items, of which the same are left out.
    pub fn same_items(&self, other: &Definitions) -> bool {
        let told = |definitions: &Definitions| -> Vec<(String, String, BTreeSet<usize>, bool)> {
            let mut told: Vec<_> = definitions
                .lives()
                .map(|(_, live)| {
                    (live.item.key.clone(), live.item.whole.clone(), live.replaced.clone(), live.stale.is_some())
                })
                .collect();
            told.sort();
            told
        };
        told(self) == told(other)
    }

    /// The names of items that `new` defines differently or no longer has.
    pub fn changed_to(&self, new: &Definitions) -> HashSet<String> {
        let texts = |definitions: &Definitions| -> BTreeMap<String, Vec<String>> {
            let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (_, live) in definitions.lives() {
                let text = format!("{} {:?}", live.item.whole, live.replaced);
                for name in live.item.names.iter().cloned().chain([live.item.key.clone()]) {
                    texts.entry(name).or_default().push(text.clone());
                }
            }
            texts
        };
        let (old, new) = (texts(self), texts(new));
        let names = old.keys().chain(new.keys());
        let changed = names.filter(|name| old.get(*name) != new.get(*name));
        // Every word in the key of an impl counts: its type and its trait.
        changed.flat_map(|name| words(name).map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Which of these definitions existing values still use although `new` defines them differently.
    pub fn outdated_in(&self, new: &Definitions) -> Outdated {
        let is_same = |one: &Arc<Library>| new.library.as_ref().is_some_and(|other| Arc::ptr_eq(one, other));
        if self.library.as_ref().is_none_or(is_same) {
            return Outdated::default();
        }
        let texts = |definitions: &Definitions| -> BTreeMap<String, String> {
            let lives = definitions.lives().filter(|(_, live)| live.stale.is_none());
            lives.map(|(_, live)| (live.item.key.clone(), format!("{} {:?}", live.item.whole, live.replaced))).collect()
        };
        let now = texts(new);
        let before = texts(self);
        let mut outdated = Outdated::default();
        for (_, live) in self.lives().filter(|(_, live)| before.get(&live.item.key) != now.get(&live.item.key)) {
            let item = &live.item;
            if let Some((of, _)) = item.key.strip_prefix("impl ").and_then(|key| key.split_once(" for ")) {
                let path = of.split('<').next().unwrap_or_default();
                let name = path.rsplit("::").next().unwrap_or_default();
                outdated.impls.push((name.to_owned(), item.title.clone()));
            } else if item.is_value {
                outdated.values.extend(item.names.iter().cloned());
            }
        }
        outdated
    }

    /// The names of types whose layout may differ in `new`: they were redefined, are gone, or contain such a type.
    pub fn reshaped_in(&self, new: &Definitions) -> HashSet<String> {
        let (old, new) = (self.shapes(), new.shapes());
        let changed = old.iter().filter(|(name, text)| new.get(*name) != Some(text));
        // The names that a macro call defines are among its words.
        let mut reshaped: HashSet<String> = changed.flat_map(|(name, _)| words(name).map(str::to_owned)).collect();
        loop {
            let resting = old.iter().filter(|(_, text)| words(text).any(|word| reshaped.contains(word)));
            let more: Vec<String> =
                resting.map(|(name, _)| name.to_string()).filter(|name| !reshaped.contains(name)).collect();
            if more.is_empty() {
                return reshaped;
            }
            reshaped.extend(more);
        }
    }

    /// Whether `named` accepts a word of a type, or a word of the items of the notebook that the type is made of.
    pub fn rests_on(&self, ty: &str, named: &dyn Fn(&str) -> bool) -> bool {
        let shapes = self.shapes();
        words(ty).any(named) || closure(ty, &shapes).values().any(|text| words(text).any(named))
    }

    /// Items that may decide the layout of a type, by name. What a macro call defines is known by its text only.
    fn shapes(&self) -> BTreeMap<&str, &str> {
        let mut shapes = BTreeMap::new();
        for (_, live) in self.lives().filter(|(_, live)| live.item.shapes) {
            let item = &live.item;
            for name in item.names.iter().chain(item.names.is_empty().then_some(&item.key)) {
                shapes.insert(name.as_str(), item.text.as_str());
            }
        }
        shapes
    }

    fn lives(&self) -> impl Iterator<Item = (&Cell, &Live)> {
        self.cells.iter().flat_map(|cell| cell.items.iter().map(move |live| (cell, live)))
    }

    /// Whether there is nothing to compile.
    pub fn is_empty(&self) -> bool {
        self.lives().all(|(_, live)| live.stale.is_some())
    }

    /// The names that cells can use; macros as `name!`.
    pub fn names(&self) -> HashSet<String> {
        let active = self.lives().filter(|(_, live)| live.stale.is_none());
        active.flat_map(|(_, live)| live.item.names.iter().cloned()).filter(|name| name != "_").collect()
    }

    /// The items of all cells, as written in their cells, oldest first.
    pub fn texts(&self) -> Vec<String> {
        self.lives()
            .filter(|(_, live)| live.stale.is_none())
            .map(|(cell, live)| {
                let (before, behind) = &live.item.around;
                let text = items::with_files(&live.item, &live.item.range, &cell.run);
                format!("{before}{text}{behind}")
            })
            .collect()
    }

    /// The same items as code for a program: without what newer cells redefine, and with the full path of each `use`.
    pub fn program(&self) -> Vec<String> {
        let active = self.lives().filter(|(_, live)| live.stale.is_none());
        let told = active.map(|(cell, live)| {
            let item = &live.item;
            let mut built = Built::default();
            if item.text.starts_with("use ") {
                built.push(&cell.run.source, item.range.clone(), &item.edits);
                return built.text.trim().replacen("pub use ", "use ", 1);
            }
            if live.replaced.is_empty() {
                let (before, behind) = &item.around;
                return format!("{before}{}{behind}", items::with_files(item, &item.range, &cell.run));
            }
            let members = live.replaced.iter().filter_map(|&index| item.members.get(index));
            let gone: Vec<Edit> = members.map(|(_, range)| Edit::replace(range.clone(), "")).collect();
            built.push(&cell.run.source, item.range.clone(), &gone);
            built.text
        });
        told.collect()
    }

    /// The tests of all cells, oldest first.
    pub fn tests(&self) -> Vec<Test> {
        let active = self.lives().filter(|(_, live)| live.stale.is_none());
        active.flat_map(|(_, live)| live.item.program.tests.iter().cloned()).collect()
    }

    /// The text of the notebook's macro `name`.
    pub fn macro_rules(&self, name: &str) -> Option<String> {
        let named =
            |live: &Live| live.item.macro_text.clone().filter(|_| live.item.names.iter().any(|known| known == name));
        self.lives().filter_map(|(_, live)| named(live)).last()
    }

    /// The items that are left out.
    pub fn left_out(&self) -> Vec<Left> {
        let left = self.lives().filter_map(|(cell, live)| {
            let stale = live.stale.clone()?;
            Some(Left { title: live.item.title.clone(), names: live.item.names.clone(), cell: cell.run.number, stale })
        });
        left.collect()
    }

    /// The text of the crate. New statics get `version` as their home, in `file`.
    pub fn source(&self, version: u64, file: &std::path::Path) -> Source {
        let mut source =
            Source { files: Vec::new(), homes: BTreeSet::new(), new_homes: BTreeMap::new(), anew: Vec::new() };
        let shapes = self.shapes();
        for cell in &self.cells {
            let text = &cell.run.source;
            let mut pages: Vec<Built> = cell.run.pages.iter().map(|page| Built::from(page.range.start)).collect();
            let mut active: Vec<&Live> = cell.items.iter().filter(|live| live.stale.is_none()).collect();
            active.sort_by_key(|live| live.item.range.start);
            for live in active {
                let edits = self.edits(&cell.run, live, &shapes, version, file, &mut source);
                let (before, behind) = &live.item.around;
                let Some((built, files)) = pages.split_first_mut() else { continue };
                built.insert(before, live.item.range.start);
                built.push(text, live.item.range.clone(), &within(&edits, &live.item.range));
                built.insert(behind, live.item.range.end);
                built.insert(" ", live.item.range.end);
                let own = |index: usize| live.item.files.iter().any(|file| file.page == index + 1);
                for (index, built) in files.iter_mut().enumerate().filter(|(index, _)| own(*index)) {
                    let range = cell.run.pages[index + 1].range.clone();
                    built.push(text, range.clone(), &within(&edits, &range));
                }
            }
            source.files.push((Arc::clone(&cell.run), pages));
        }
        source
    }

    fn edits(
        &self,
        run: &Run,
        live: &Live,
        shapes: &BTreeMap<&str, &str>,
        version: u64,
        file: &std::path::Path,
        source: &mut Source,
    ) -> Vec<Edit> {
        let item = &live.item;
        let gone = |index: usize| item.members.get(index).map(|(_, range)| range.clone());
        let mut replaced: Vec<Edit> =
            live.replaced.iter().filter_map(|&index| gone(index)).map(|range| Edit::replace(range, "")).collect();
        let folder = file.parent().unwrap_or(file);
        let declared =
            item.files.iter().filter_map(|one| Some(one.named(&folder.join(&run.pages.get(one.page)?.label))));
        let mut made: Vec<Edit> = declared.collect();
        let mut index = 0;
        while let Some(first) = item.statics.get(index) {
            // One macro call may define several statics.
            let group: Vec<&Static> =
                item.statics[index..].iter().take_while(|found| found.range == first.range).collect();
            index += group.len();
            if replaced.iter().any(|edit| contains(&edit.range, &first.range)) {
                continue;
            }
            let signatures: Vec<String> = group.iter().map(|found| signature(found, shapes, &item.inner)).collect();
            let homes: Vec<Option<&Home>> = group
                .iter()
                .zip(&signatures)
                .map(|(found, signature)| self.homes.get(&found.path).filter(|home| home.signature == *signature))
                .collect();
            if let Some(homes) = homes.into_iter().collect::<Option<Vec<&Home>>>() {
                let declared: String =
                    group.iter().zip(&homes).map(|(found, home)| found.declared(&home.symbol)).collect();
                replaced.push(Edit::replace(first.range.clone(), declared));
                for (found, home) in group.iter().zip(homes) {
                    source.homes.insert(home.file.clone());
                    source.new_homes.insert(found.path.clone(), home.clone());
                }
                continue;
            }
            for (found, signature) in group.iter().zip(signatures) {
                let name: String =
                    found.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                let symbol = format!("wm_static_{version}_{}_{name}", source.new_homes.len());
                made.extend(found.defined(&symbol));
                if self.homes.contains_key(&found.path) {
                    source.anew.push(found.path.clone());
                }
                let home = Home { symbol, version, file: file.to_owned(), signature };
                source.new_homes.insert(found.path.clone(), home);
            }
        }
        // The attribute of a home comes before `pub`. Edits inside text that is replaced are dropped with it.
        let mut edits = made;
        edits.extend(item.edits.iter().cloned());
        edits.retain(|edit| !replaced.iter().any(|outer| contains(&outer.range, &edit.range)));
        let swallowing: Vec<Range<usize>> =
            edits.iter().filter(|edit| !edit.range.is_empty()).map(|edit| edit.range.clone()).collect();
        edits.retain(|edit| {
            !swallowing
                .iter()
                .any(|outer| *outer != edit.range && contains(outer, &edit.range) && edit.range.start < outer.end)
        });
        edits.extend(replaced);
        edits.sort_by_key(|edit| edit.range.start);
        edits
    }

    /// Notes that these items are compiled: their statics have homes now.
    pub fn compiled(&mut self, library: Arc<Library>, source: Source) {
        self.homes.extend(source.new_homes);
        self.library = Some(library);
        self.cells.iter_mut().flat_map(|cell| &mut cell.items).for_each(|live| live.was_stale = None);
    }

    /// Notes that crates were rebuilt: these items must be compiled again, and their statics start again.
    pub fn start_anew(&mut self) {
        self.library = None;
        self.homes.clear();
    }

    fn forget_homes(&mut self) {
        let paths: HashSet<String> =
            self.lives().flat_map(|(_, live)| live.item.statics.iter().map(|found| found.path.clone())).collect();
        self.homes.retain(|path, _| paths.contains(path));
    }

    /// Leaves out the item that contains byte `byte` of the run `at`. Returns true if there is one.
    pub fn leave_out(&mut self, at: &Arc<Run>, byte: usize, stale: &Stale) -> bool {
        let cell = self.cells.iter_mut().find(|cell| Arc::ptr_eq(&cell.run, at));
        let lives = cell.into_iter().flat_map(|cell| &mut cell.items);
        let mut found = false;
        for live in lives.filter(|live| live.stale.is_none()) {
            let range = &live.item.range;
            let page = at.pages.iter().rposition(|page| page.range.start <= byte).unwrap_or_default();
            let here = live.item.files.iter().any(|file| file.page == page);
            if here || page == 0 && range.start <= byte && byte <= range.end && !(byte == range.end && found) {
                // If the reason is the same as before, the cell that caused it stays the same.
                let before = live.was_stale.take().filter(|before| before.reason == stale.reason);
                live.stale = Some(before.unwrap_or_else(|| stale.clone()));
                found = true;
                break;
            }
        }
        found
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn shared<'a>(some: &'a [String], others: &[String]) -> Vec<&'a String> {
    some.iter().filter(|name| others.contains(name)).collect()
}

/// What distinguishes a static from another with the same path: its own text, and the text of the items and inner types it depends on.
fn signature(found: &Static, shapes: &BTreeMap<&str, &str>, inner: &BTreeMap<String, String>) -> String {
    let mut known = shapes.clone();
    known.extend(inner.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    format!("{} {:?}", found.text, closure(&found.text, &known))
}

/// The edits that lie in a range, its end included.
fn within(edits: &[Edit], range: &Range<usize>) -> Vec<Edit> {
    edits.iter().filter(|edit| contains(range, &edit.range)).cloned().collect()
}

/// The items that a text names, those that they name, and so on.
fn closure<'a>(text: &str, shapes: &BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, &'a str> {
    let mut rests: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open: Vec<&str> = words(text).collect();
    while let Some(word) = open.pop() {
        if let Some((name, text)) = shapes.get_key_value(word)
            && rests.insert(name, text).is_none()
        {
            open.extend(words(text));
        }
    }
    rests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cell::{Cell as Parsed, Page};
    use std::path::Path;

    fn run(number: u32, source: &str) -> Run {
        let page = Page { name: "In".into(), label: format!("In [{number}]"), range: 0..source.len() };
        Run::new(number, vec![page], source)
    }

    fn define(definitions: &Definitions, number: u32, source: &str, id: Option<&str>) -> (Definitions, String) {
        let parsed = Parsed::parse(source, Path::new("/"), &|name| definitions.macro_rules(name));
        let mut new = definitions.with(&Arc::new(run(number, source)), parsed.items, id, &[]);
        let file = PathBuf::from(format!("/{number}.so"));
        let source = new.source(u64::from(number), &file);
        let text = source.files.iter().map(|(_, built)| built[0].text.trim()).collect::<Vec<_>>().join("|");
        new.compiled(Arc::new(Library { file }), source);
        (new, text)
    }

    #[test]
    fn the_newest_of_each_name_counts() {
        let (first, _) = define(&Definitions::default(), 1, "fn f() -> i32 { 1 }\nfn g() {}", None);
        let (second, text) = define(&first, 2, "fn f() -> i32 { 2 }", None);
        assert_eq!(text, "pub fn g() {}|pub fn f() -> i32 { 2 }");
        let (_, text) = define(&second, 3, "use std::{f, rc::Rc};", None);
        assert_eq!(text, "pub fn g() {}|pub use std::{f}; pub use std::{rc::Rc};");
    }

    #[test]
    fn a_cell_that_runs_again_replaces_what_it_defined() {
        let (first, _) = define(&Definitions::default(), 1, "fn f() {}\nfn g() {}", Some("a"));
        let (second, text) = define(&first, 2, "fn g() { g() }", Some("a"));
        assert_eq!(text, "pub fn g() { g() }");
        assert!(second.with(&Arc::new(run(3, "")), Vec::new(), None, &["a".to_owned()]).is_empty());
    }

    #[test]
    fn a_method_is_replaced_on_its_own() {
        let (first, _) = define(&Definitions::default(), 1, "impl P { fn a() {} fn b() {} }", None);
        let (_, text) = define(&first, 2, "impl P { fn a() { 2 } }", None);
        assert_eq!(text, "impl P {  pub fn b() {} }|impl P { pub fn a() { 2 } }");
    }

    #[test]
    fn a_static_keeps_its_home_until_it_changes() {
        let (first, home) = define(&Definitions::default(), 1, "static N: u8 = 1; fn f() {}", None);
        assert_eq!(home, "#[unsafe(export_name = \"wm_static_1_0_N\")] pub static N: u8 = 1; pub fn f() {}");
        let (second, text) = define(&first, 2, "fn f() { f() }", None);
        assert!(
            text.starts_with("unsafe extern \"C\" { #[link_name = \"wm_static_1_0_N\"] pub safe static N: u8; }"),
            "{text}"
        );
        let run = Arc::new(run(3, "static N: u8 = 2;"));
        let parsed = Parsed::parse("static N: u8 = 2;", Path::new("/"), &|_| None);
        let third = second.with(&run, parsed.items, None, &[]).source(3, Path::new("/3.so"));
        assert_eq!(third.anew, ["N"]);
    }

    #[test]
    fn what_values_keep_of_old_items_is_told() {
        let (first, _) =
            define(&Definitions::default(), 1, "fn f() {} fn g() {} impl fmt::Debug for P { fn fmt() {} }", None);
        let (second, _) = define(&first, 2, "fn f() { g() } fn new() {}", None);
        assert_eq!(first.outdated_in(&second), Outdated { impls: Vec::new(), values: ["f".to_owned()].into() });
        let (third, _) = define(&second, 3, "impl fmt::Debug for P { fn fmt() { 1 } }", None);
        let impls = vec![("Debug".to_owned(), "impl fmt::Debug for P".to_owned())];
        assert_eq!(second.outdated_in(&third), Outdated { impls, values: BTreeSet::new() });
        assert_eq!(third.outdated_in(&third), Outdated::default());
    }

    #[test]
    fn what_rests_on_a_changed_type_is_reshaped() {
        let (first, _) =
            define(&Definitions::default(), 1, "struct A { x: u8 } struct B(A); struct C; fn f() {}", None);
        let (second, _) = define(&first, 2, "struct A { x: u16 }", None);
        let mut reshaped: Vec<String> = first.reshaped_in(&second).into_iter().collect();
        reshaped.sort();
        assert_eq!(reshaped, ["A", "B"]);
        let (third, _) = define(&second, 3, "use tool::Tool; struct Box2 { held: Tool }", None);
        let is_tool = |word: &str| word == "tool";
        assert!(
            third.rests_on("this_notebook::Tool", &is_tool) && third.rests_on("Vec<this_notebook::Box2>", &is_tool)
        );
        assert!(!third.rests_on("this_notebook::B", &is_tool));
        assert!(first.changed_to(&second).contains("A") && !first.changed_to(&second).contains("f"));
    }
}
