"""The meaning of a notebook: state lives once, the newest definition counts, work before an error is kept, and a cell is a function
body."""

import fcntl
import json
import os
import re
from pathlib import Path

import pytest
from driver import Kernel, Ran

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def notebook():
    with Kernel() as kernel:
        yield kernel


def plain(error):
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))


def run(kernel, code, cell=None, deleted=()):
    """Runs a cell as a frontend does that names its cells."""
    metadata = ({"cellId": cell} if cell else {}) | ({"deletedCells": list(deleted)} if deleted else {})
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    message = kernel.client.session.msg("execute_request", content, metadata=metadata)
    kernel.client.shell_channel.send(message)
    msg_id = message["header"]["msg_id"]
    messages = list(kernel.iopub(msg_id))
    return Ran(kernel.shell(msg_id), messages)


def good(ran):
    assert ran.status == "ok", plain(ran.reply["content"])
    return ran


# 1. State lives once.


@pytest.mark.parametrize(
    ("define", "change", "read", "value"),
    [
        ("use std::sync::Mutex;\nstatic LOG: Mutex<Vec<i32>> = Mutex::new(vec![]);\nLOG.lock().unwrap().push(1);", "LOG.lock().unwrap().push(2);", "LOG.lock().unwrap().clone()", "[1, 2]"),
        ("use std::sync::atomic::{AtomicU32, Ordering::SeqCst};\nfn tick() -> u32 { static N: AtomicU32 = AtomicU32::new(0); N.fetch_add(1, SeqCst) }\ntick();", "fn unrelated() {}", "(tick(), tick())", "(1, 2)"),
        ("static mut RAW: u32 = 1;", "unsafe { RAW += 6; }\nfn another() {}", "unsafe { RAW }", "7"),
        ("mod inner { pub static DEEP: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(3); }", "inner::DEEP.store(9, std::sync::atomic::Ordering::SeqCst); struct Other;", "inner::DEEP.load(std::sync::atomic::Ordering::SeqCst)", "9"),
        ("use std::cell::Cell as Local;\nthread_local! { static HERE: Local<i32> = const { Local::new(1) }; static THERE: Local<i32> = Local::new(2) }", "HERE.set(5); fn third() {}", "(HERE.get(), THERE.get())", "(5, 2)"),
        ("use std::sync::OnceLock;\nstatic ONCE: OnceLock<String> = OnceLock::new();", "ONCE.set(\"first\".into()).unwrap(); fn fourth() {}", "ONCE.get()", "Some(\"first\")"),
        ("static LAZY: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| { println!(\"made\"); 4 });\n*LAZY;", "fn fifth() {}", "*LAZY", "4"),
        ("struct Meter { n: i32 }\nimpl Meter { fn next(&self) -> usize { static N: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(10); N.fetch_add(1, std::sync::atomic::Ordering::SeqCst) } }\nMeter { n: 0 }.next();", "fn sixth() {}", "Meter { n: 0 }.next()", "11"),
        ("use std::borrow::Cow;\nstatic WORDS: std::sync::Mutex<Vec<Cow<str>>> = std::sync::Mutex::new(Vec::new());\nstatic PAIR: [&str; 2] = [\"a\", \"b\"];", "WORDS.lock().unwrap().push(\"w\".into()); fn seventh() {}", "(WORDS.lock().unwrap().len(), PAIR)", '(1, ["a", "b"])'),
    ],
    ids=["mutex", "in a function", "static mut", "in a module", "thread_local", "OnceLock", "LazyLock", "in a method", "lifetimes left out"],
)
def test_a_static_keeps_its_value(notebook, define, change, read, value):
    good(notebook.run(define))
    good(notebook.run(change))
    ran = good(notebook.run(read))
    assert ran.value == value and ran.stream() == "", "it is not made a second time"


def test_a_static_that_is_defined_anew_starts_anew_and_says_so(notebook):
    good(notebook.run("use std::sync::atomic::{AtomicI8, Ordering};\nstatic FRESH: AtomicI8 = AtomicI8::new(1);\nFRESH.store(5, Ordering::SeqCst);"))
    assert "starts again" not in notebook.run("static FRESH: AtomicI8 = AtomicI8::new(1);").stream("stderr")
    assert notebook.value("FRESH.load(Ordering::SeqCst)") == "5"
    assert "`FRESH` starts again" in notebook.run("static FRESH: AtomicI8 = AtomicI8::new(2);").stream("stderr")
    assert notebook.value("FRESH.load(Ordering::SeqCst)") == "2"


# 3. The newest definition counts.


def test_an_impl_that_runs_again_replaces_its_methods_and_leaves_the_others(notebook):
    good(notebook.run("struct P(i32);"))
    good(notebook.run("impl P { fn one(&self) -> i32 { self.0 } fn two(&self) -> i32 { 2 } }"))
    good(notebook.run("let point = P(1);"))
    good(notebook.run("impl P { fn one(&self) -> i32 { self.0 + 100 } }"))
    assert notebook.value("(P(1).one(), point.one(), point.two())") == "(101, 101, 2)"
    good(notebook.run("impl std::fmt::Display for P { fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { write!(f, \"a\") } }"))
    good(notebook.run("impl std::fmt::Display for P { fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { write!(f, \"b\") } }"))
    assert notebook.value("point.to_string()") == '"b"'


def test_who_calls_a_function_calls_the_newest(notebook):
    good(notebook.run("fn inner_f() -> i32 { 1 }"))
    good(notebook.run("fn outer_f() -> i32 { inner_f() * 10 }"))
    good(notebook.run("fn inner_f() -> i32 { 2 }"))
    assert notebook.value("outer_f()") == "20"
    good(notebook.run("const SIDE: i32 = 3;\nfn area() -> i32 { SIDE * SIDE }"))
    good(notebook.run("const SIDE: i32 = 4;"))
    assert notebook.value("area()") == "16"
    good(notebook.run("macro_rules! step { () => { 1 } }\nfn stepped() -> i32 { step!() }"))
    good(notebook.run("macro_rules! step { () => { 5 } }"))
    assert notebook.value("(stepped(), step!())") == "(5, 5)"
    good(notebook.run("use std::cmp::max as pick;\nfn picked() -> i32 { pick(1, 2) }"))
    good(notebook.run("use std::cmp::min as pick;"))
    assert notebook.value("(picked(), pick(1, 2))") == "(1, 1)"


def test_what_no_longer_compiles_is_stale_and_named_and_comes_back(notebook):
    good(notebook.run("struct Cfg { lr: f64 }"))
    maker = notebook.run("fn make() -> Cfg { Cfg { lr: 0.1 } }").reply["content"]["execution_count"]
    good(notebook.run("let cfg = make();"))
    changed = good(notebook.run("struct Cfg { lr: f64, n: u8 }"))
    number = changed.reply["content"]["execution_count"]
    said = changed.stream("stderr")
    assert f"`make` of cell [{maker}] no longer compiles since cell [{number}]: missing field `n`" in said
    assert "`cfg` is lost" in said
    error = notebook.run("make().n").error
    assert error["ename"] == "E0425" and f"`make` is stale: cell [{maker}]" in plain(error)
    # It is tried again when its dependencies change, and not reported again.
    again = good(notebook.run("impl Cfg { fn rate(&self) -> f64 { self.lr } }"))
    assert "no longer compiles" not in again.stream("stderr")
    assert f"no longer compiles since cell [{number}]" in plain(notebook.run("make().n").error)
    assert "defines its type again" in plain(notebook.run("cfg.lr").error)
    assert notebook.value("Cfg { lr: 1.0, n: 2 }.n") == "2", "the new type is there"
    good(notebook.run("struct Cfg { lr: f64 }"))
    assert notebook.value("make().lr") == "0.1"


def test_a_value_that_keeps_an_old_impl_or_function_is_named(notebook):
    good(notebook.run("trait Speak { fn speak(&self) -> String; }\nstruct Dog;\nimpl Speak for Dog { fn speak(&self) -> String { \"woof\".into() } }\nfn helper() -> i32 { 1 }"))
    good(notebook.run("let pet: Box<dyn Speak> = Box::new(Dog);\nlet call: fn() -> i32 = helper;\nlet boxed: Box<dyn Fn() -> i32> = Box::new(|| helper() + 1);\nlet plain_number = 4;"))
    said = good(notebook.run("impl Speak for Dog { fn speak(&self) -> String { \"WOOF\".into() } }")).stream("stderr")
    assert said == "note: `pet` was made before and keeps the old `impl Speak for Dog`.\n"
    assert notebook.value("(pet.speak(), Dog.speak())") == '("woof", "WOOF")'
    said = good(notebook.run("fn helper() -> i32 { 10 }")).stream("stderr")
    assert said == "note: `boxed` was made before and keeps the old `helper`.\nnote: `call` was made before and keeps the old `helper`.\n"
    assert notebook.value("(call(), boxed(), helper())") == "(1, 2, 10)"
    assert "keeps" not in good(notebook.run("fn helper() -> i32 { 10 }")).stream("stderr")


def test_a_variable_gives_way_to_a_newer_item_of_its_name(notebook):
    good(notebook.run("let rate = 3;"))
    assert "`rate` is lost" in good(notebook.run("fn rate() -> i32 { 5 }")).stream("stderr")
    assert notebook.value("rate()") == "5"
    good(notebook.run("let rate = rate() + 1;"))
    assert notebook.value("rate") == "6"
    good(notebook.run("fn rate() -> i32 { 5 }"))
    assert notebook.value("rate") == "6", "the same item again is no newer one"


def test_an_impl_is_the_same_whatever_its_parameters_are_called(notebook):
    good(notebook.run("struct Stack<T> { items: Vec<T> }\nimpl<T: Clone> Stack<T> { fn new() -> Self { Stack { items: vec![] } } fn push(&mut self, item: T) { self.items.push(item) } }"))
    good(notebook.run("let mut stack: Stack<i32> = Stack::new();\nstack.push(1);"))
    assert good(notebook.run("impl<Item: Clone> Stack<Item> { fn push(&mut self, item: Item) { self.items.push(item.clone()); self.items.push(item) } }")).stream("stderr") == ""
    good(notebook.run("stack.push(2);"))
    assert notebook.value("(&stack.items, Stack::<u8>::new().items.len())") == "([1, 2, 2], 0)"


def test_a_cell_whose_own_items_fail_changes_nothing(notebook):
    good(notebook.run("fn steady() -> i32 { 1 }"))
    assert notebook.run("fn steady() -> i32 { \"no\" }").error["ename"] == "E0308"
    assert notebook.run("fn steady() -> i32 { 2 }\nno_such_name").error["ename"] == "E0425"
    assert notebook.value("steady()") == "1"


def test_a_named_cell_replaces_all_that_it_defined_and_a_deleted_one_goes(notebook):
    good(run(notebook, "fn from_a() -> i32 { 1 }\nfn also_a() -> i32 { 2 }", cell="a"))
    good(run(notebook, "fn from_a() -> i32 { 3 }", cell="a"))
    assert notebook.value("from_a()") == "3"
    assert notebook.run("also_a()").error["ename"] == "E0425"
    good(run(notebook, "fn from_b() -> i32 { from_a() }", cell="b"))
    good(run(notebook, "1", cell="c", deleted=["b"]))
    assert notebook.run("from_b()").error["ename"] == "E0425"


def test_all_cells_twice_are_as_good_as_once(fresh):
    cells = [
        "use std::collections::HashMap;\n#[derive(Debug, Clone, PartialEq)]\nstruct Item { name: String }",
        "impl Item { fn new(name: &str) -> Self { Item { name: name.into() } } }\ntrait Shout { fn shout(&self) -> String; }",
        "impl Shout for Item { fn shout(&self) -> String { self.name.to_uppercase() } }\nmacro_rules! item { ($n:expr) => { Item::new($n) } }",
        "let mut all: HashMap<i32, Item> = HashMap::new();\nall.insert(1, item!(\"a\"));",
        "all[&1].shout()",
    ]
    for _ in range(2):
        for cell in cells:
            last = good(fresh.run(cell))
    assert last.value == '"A"'


@pytest.mark.parametrize("name", ["00_quickstart", "05_rust_in_notebooks"])
def test_a_tutorial_twice_is_as_good_as_once(name, tmp_path):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    cells = ["".join(cell["source"]).removeprefix("%%rust\n") for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # Commands answer for their session, and random numbers differ each time.
    cells = [cell.replace("/tmp/", f"{tmp_path}/") for cell in cells if not cell.startswith(("%", ":", "!"))]
    told = []
    with Kernel(cwd=str(NOTEBOOKS)) as kernel:
        for _ in range(2):
            ran = [kernel.run(cell, timeout=600) for cell in cells]
            told.append([(one.status, one.error and one.error["ename"], None if "rand" in cell else one.value) for one, cell in zip(ran, cells)])
    assert told[0] == told[1] and len(cells) > 5
    errors = [ename for status, ename, _ in told[0] if status == "error"]
    assert len(errors) <= len([cell for cell in notebook["cells"] if "raises-exception" in cell["metadata"].get("tags", [])]), told[0]


# 4. Work before an error is kept.


@pytest.mark.parametrize(
    ("failing", "ename"),
    [("let bad: i32 = \"x\".parse()?;", "ParseIntError"), ("let v: Vec<i32> = vec![];\nlet bad = v[3];", "Panic"), ("let none: Option<i32> = None;\nnone?;", "None")],
)
def test_what_was_bound_before_an_error_is_there(notebook, failing, ename):
    error = notebook.run(f"let mut good_one = vec![1];\nlet good_two = String::from(\"b\");\ngood_one.push(2);\n{failing}\nlet never = 1;").error
    assert error["ename"] == ename
    assert notebook.value("(&good_one, &good_two)") == '([1, 2], "b")'
    assert notebook.run("never").error["ename"] == "E0425"


def test_variables_of_earlier_cells_outlive_an_error(notebook):
    good(notebook.run("let mut earlier = vec![String::from(\"a\")];"))
    assert notebook.run("earlier.push(\"b\".into());\n\"x\".parse::<i32>()?;").error["ename"] == "ParseIntError"
    assert notebook.value("earlier.len()") == "2"
    assert notebook.run("earlier.push(\"c\".into());\nearlier[9].len()").error["ename"] == "Panic"
    assert notebook.value("earlier.len()") == "3"


def test_what_a_later_line_moves_is_there_when_an_error_comes_first(notebook):
    good(notebook.run("let handed = vec![1];"))
    assert notebook.run("let own = vec![2];\n\"x\".parse::<i32>()?;\ndrop(handed);\ndrop(own);").error["ename"] == "ParseIntError"
    assert notebook.value("(handed.len(), own.len())") == "(1, 1)"
    assert notebook.run("let moved = handed;\n\"x\".parse::<i32>()?;").error["ename"] == "ParseIntError"
    assert notebook.value("moved.len()") == "1"
    error = notebook.run("handed").error
    assert error["ename"] == "E0425" and "`handed` was moved away" in plain(error)


def test_a_variable_that_was_moved_away_gets_a_value_again(notebook):
    good(notebook.run("let mut state = vec![1];"))
    good(notebook.run("drop(state);"))
    good(notebook.run("state = vec![5, 6];"))
    assert notebook.value("state") == "[5, 6]"
    good(notebook.run("fn grow(mut v: Vec<i32>) -> Vec<i32> { v.push(7); v }\nstate = grow(state);"))
    assert notebook.value("state") == "[5, 6, 7]"


def test_a_crash_is_told_with_what_it_cost_then_and_later(fresh):
    fresh.run("let costly = 1;")
    assert "costly" in fresh.run("std::process::abort()").error["evalue"]
    assert "`costly` is lost" in plain(fresh.run("costly").error)


# 5. A cell is a function body.


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        ("let base = 10; let f = |x: i32| x + base; println!(\"{}\", f(2));", "12\n"),
        ("let mut total = 0; let mut add = |x: i32| total += x; add(1); add(2); println!(\"{total}\");", "3\n"),
        ("let mut v = vec![1]; let r = &mut v; r.push(2); let n = 5; println!(\"{} {n}\", v.len());", "2 5\n"),
        ("let mut v = vec![1]; let r = &mut v; r.push(2); let n = 5; r.push(n); println!(\"{v:?}\");", "[1, 2, 5]\n"),
        ("let m = std::sync::Mutex::new(1); let mut g = m.lock().unwrap(); *g += 1; println!(\"{}\", *g);", "2\n"),
        ("let text = String::from(\"a b\"); let words: Vec<&str> = text.split(' ').collect(); println!(\"{words:?}\");", "[\"a\", \"b\"]\n"),
        ("let (a, b); a = 1; b = a + 1; println!(\"{a} {b}\");", "1 2\n"),
    ],
)
def test_closures_guards_and_references_are_as_in_a_function(notebook, cell, printed):
    assert good(notebook.run(cell)).stream() == printed


def test_a_reference_or_a_guard_does_not_cost_its_owner(notebook):
    good(notebook.run("let total = 3; let owner = vec![String::from(\"x\")]; let first = &owner[0]; let lock = std::sync::Mutex::new(1); let guard = lock.lock().unwrap();"))
    assert notebook.value("(total, owner.len(), *lock.lock().unwrap())") == "(3, 1, 1)"


def test_a_struct_that_holds_a_borrowing_closure_does_not_cost_what_it_borrows(notebook):
    good(notebook.run("struct Steps<'a> { each: Option<Box<dyn FnMut(i32) + 'a>>, count: i32 }\nfn walk(mut steps: Steps) { for n in 0..steps.count { if let Some(each) = &mut steps.each { each(n) } } }"))
    good(notebook.run("let by = vec![10];"))
    cell = "let mut seen = Vec::new();\nlet steps = Steps { count: 3, each: Some(Box::new(|n| seen.push(n * by[0]))) };\nwalk(steps);"
    good(notebook.run(cell))
    assert notebook.value("(seen, by)") == "([0, 10, 20], [10])"


@pytest.fixture(scope="module")
def borrowers(notebook):
    """The notebook, with types that borrow and that act when they are dropped."""
    good(notebook.run("""use std::slice::{ChunksMut, Iter};
struct Walk<'a> { items: Iter<'a, i32> }
impl Drop for Walk<'_> { fn drop(&mut self) { println!("walked"); } }
struct Cut<'a> { parts: ChunksMut<'a, i32> }
impl Drop for Cut<'_> { fn drop(&mut self) {} }
struct Held<'a> { guard: std::sync::MutexGuard<'a, i32> }
struct Timer<'a> { ring: Box<dyn FnMut(i32) + 'a> }
impl Drop for Timer<'_> { fn drop(&mut self) { (self.ring)(9) } }"""))
    return notebook


@pytest.mark.parametrize(
    ("cell", "printed", "later", "value", "gone"),
    [
        ("let v = vec![1, 2];\nlet mut walker = Walk { items: v.iter() };\nprint!(\"{:?} \", walker.items.next());\nlet n = 7;", "Some(1) walked\n", "(&v, n)", "([1, 2], 7)", "walker"),
        ("let mut v = vec![1, 2];\nlet mut cut = Cut { parts: v.chunks_mut(1) };\ncut.parts.next().unwrap()[0] = 5;\nlet n = 7;", "", "(&v, n)", "([5, 2], 7)", "cut"),
        ("let mut v = vec![1, 2, 3];\nlet mut drain = v.drain(..2);\ndrain.next();", "", "&v", "[3]", "drain"),
        ("let m = std::sync::Mutex::new(1);\nlet mut held = Held { guard: m.lock().unwrap() };\n*held.guard += 1;\nlet n = 7;", "", "(*m.lock().unwrap(), n)", "(2, 7)", "held"),
        ("let k = String::from(\"a\");\nlet add: Box<dyn Fn(&str) -> String + '_> = Box::new(|x| format!(\"{x}{k}\"));\nlet n = 5;\nprintln!(\"{}\", add(\"b\"));", "ba\n", "(&k, n)", '("a", 5)', "add"),
        ("let (mut v, mut text) = (vec![0], String::new());\nlet mut timer = Timer { ring: Box::new(|x| { v.push(x); text.push('x'); }) };\n(timer.ring)(1);", "", "(&v, &text)", '([0, 1, 9], "xx")', "timer"),
        ("let base = String::from(\"b\");\nlet all: Vec<Box<dyn Fn() -> usize + '_>> = vec![Box::new(|| base.len())];\nlet n = all[0]();", "", "(&base, n)", '("b", 1)', "all"),
        ("let mut refs: Vec<&String> = Vec::new();\nlet text = String::from(\"x\");\nrefs.push(&text);\nlet n = refs.len();", "", "(&text, n)", '("x", 1)', "refs"),
        ("let v = vec![3, 1];\nlet items = v.iter();\nlet most = items.max().copied();", "", "(&v, most)", "([3, 1], Some(3))", "items"),
        ("let text = String::from(\"a b\");\nlet lit = \"lit\";\nlet first = text.split(' ').next();", "", "(&text, lit)", '("a b", "lit")', "first"),
    ],
)
def test_what_borrows_is_dropped_before_what_it_borrows_is_stored(borrowers, cell, printed, later, value, gone):
    notebook = borrowers
    ran = good(notebook.run(cell))
    assert ran.stream() == printed
    assert ran.stream("stderr").count("note:") == 1 and f"`{gone}` lives in this cell only: it borrows from another variable" in ran.stream("stderr")
    assert notebook.value(later) == value
    assert "a reference cannot outlive its cell" in plain(notebook.run(gone).error)


@pytest.fixture(scope="module")
def movers(notebook):
    """The notebook, with types that borrow for their whole life, and functions that take them."""
    good(notebook.run("""struct Each<'a> { call: Option<Box<dyn FnMut(i32) + 'a>> }
impl<'a> Each<'a> { fn calls(f: impl FnMut(i32) + 'a) -> Self { Each { call: Some(Box::new(f)) } } }
fn take(mut each: Each) -> Result<i32, String> { for n in 0..3 { if let Some(call) = &mut each.call { call(n) } } Ok(3) }
fn lend(each: &mut Each) { if let Some(call) = &mut each.call { call(9) } }
struct Writer<'a>(&'a mut Vec<i32>);
impl<'a> Writer<'a> { fn put(self, n: i32) -> Self { self.0.push(n); self } fn end(self) -> usize { self.0.len() } }
let mut before = vec![1];"""))
    return notebook


@pytest.mark.parametrize(
    ("cell", "value", "later", "kept"),
    [
        ("let mut seen = Vec::new();\nlet each = Each::calls(|n| seen.push(n));\ntake(each)?;\nseen.len()", "3", "&seen", "[0, 1, 2]"),
        ("let mut seen = Vec::new();\nlet each = Each::calls(|n| seen.push(n));\nlet n = take(each)?;\nlet m = seen.len();\n(n, m)", "(3, 3)", "(n, m, &seen)", "(3, 3, [0, 1, 2])"),
        ("let mut v = vec![4];\nlet mut each = Each::calls(|n| v.push(n));\nlend(&mut each);\nlet k = 5;\ntake(each)?;\nv.push(k);\nv.len()", "6", "(&v, k)", "([4, 9, 0, 1, 2, 5], 5)"),
        ("let mut a = vec![1];\nlet mut b = vec![2];\nlet one = Each::calls(|n| a.push(n));\nlet two = Each::calls(|n| b.push(n));\ntake(one)?;\na.push(7);\ntake(two)?;\nb.len()", "4", "(&a, &b)", "([1, 0, 1, 2, 7], [2, 0, 1, 2])"),
        ("let mut v: Vec<i32> = Vec::new();\nlet one = Writer(&mut v);\nlet two = one.put(1);\nlet n = two.put(5).end();\nv.push(n as i32);\nv.len()", "3", "(&v, n)", "([1, 5, 2], 2)"),
        ("let mut text = String::new();\nlet f: Box<dyn FnMut(&str) + '_> = Box::new(|s| text.push_str(s));\nlet mut g = f;\ng(\"a\");\ndrop(g);\ntext.push('b');\ntext.len()", "2", "&text", '"ab"'),
        ("let mut v = vec![1, 2, 3];\nlet drain = v.drain(1..);\nlet tail: Vec<i32> = drain.collect();\nv.push(7);\nv.len()", "2", "(&v, &tail)", "([1, 7], [2, 3])"),
        ("let lock = std::sync::Mutex::new(vec![1]);\nlet guard = lock.lock().unwrap();\ndrop(guard);\nlet inner = lock.into_inner().unwrap();\ninner.len()", "1", "&inner", "[1]"),
        ("let base = vec![1, 2];\nlet mut sums = Vec::new();\nlet each = Each::calls(|n| sums.push(base[0] + n));\nlet extra = vec![5];\ntake(each)?;\nlet both = [sums, extra].concat();\nlet moved = base;\nboth.len()", "4", "(&both, &moved)", "([1, 2, 3, 5], [1, 2])"),
        ("let each = Each::calls(|n| before.push(n));\nlet k = 6;\ntake(each)?;\nbefore.push(k);\nbefore.len()", "5", "(&before, k)", "([1, 0, 1, 2, 6], 6)"),
        ("let mut v = vec![8];\nlet each = Each::calls(|n| v.push(n));\nlet k = 2;\ntokio::task::yield_now().await;\ntake(each)?;\nv.push(k);\nv.len()", "5", "(&v, k)", "([8, 0, 1, 2, 2], 2)"),
    ],
)
def test_what_borrows_may_be_moved_before_what_it_borrows_is_used_again(movers, cell, value, later, kept):
    assert movers.value(cell) == value
    assert movers.value(later) == kept


@pytest.mark.parametrize(
    ("cell", "ename", "line"),
    [
        ("let mut v = vec![1];\nlet first = &v[0];\nv.push(2);\nprintln!(\"{first}\");", "E0502", 3),
        ("let mut n = 0;\nlet mut more = || n += 1;\nprintln!(\"{n}\");\nmore();", "E0502", 3),
        ("let text = String::from(\"a\");\nlet other = text;\nlet k = 1;\nprintln!(\"{text} {k}\");", "E0382", 4),
        ("let outer: &String;\n{\n    let inner = String::new();\n    outer = &inner;\n}\nouter.len()", "E0597", 4),
    ],
)
def test_a_mistake_of_borrowing_is_told_as_in_a_function(notebook, cell, ename, line):
    error = notebook.run(cell).error
    assert error["ename"] == ename and f":{line}:" in plain(error).splitlines()[1]


def test_names_of_any_case_and_names_that_macros_bind_persist(notebook):
    good(notebook.run("let N = 3; let (Wide, tall) = (1, 2);"))
    assert notebook.value("(N, Wide, tall)") == "(3, 1, 2)"
    good(notebook.run("macro_rules! bind { ($n:ident, $v:expr) => { let $n = $v; } }\nbind!(made, 8);"))
    assert notebook.value("made") == "8"


def test_a_macro_of_the_notebook_may_return_an_error_from_a_cell_and_from_a_function(notebook):
    good(notebook.run("""macro_rules! demand { ($c:expr) => { if !$c { return Err(format!("not {}", stringify!($c)).into()) } } }
macro_rules! unwrap_or_leave { ($o:expr) => { match $o { Some(value) => value, None => return Err("nothing there".into()) } } }
fn checked(n: i32) -> Result<i32, Box<dyn std::error::Error>> { demand!(n > 0); Ok(unwrap_or_leave!(Some(n))) }"""))
    assert notebook.value("let n = unwrap_or_leave!(Some(4));\ndemand!(n > 3);\nn + checked(n)?") == "8"
    assert notebook.run("let m = n + 1;\ndemand!(m < n);").error["evalue"] == "not m < n"
    assert notebook.run("let k = m + unwrap_or_leave!(None::<i32>);").error["evalue"] == "nothing there"
    assert notebook.value("(n, m)") == "(4, 5)"


def test_any_error_may_end_a_cell(notebook):
    good(notebook.run("#[derive(Debug)]\nstruct Plain(i32);\nfn fails() -> Result<(), Plain> { Err(Plain(4)) }"))
    error = notebook.run("fails()?;").error
    assert error["ename"] == "Plain" and error["evalue"] == "Plain(4)"
    assert notebook.run("None::<i32>?;").error["evalue"] == "`?` met `None`"


# 6. Items made by macros, and by files.


def test_a_macro_of_the_notebook_counts_more_than_that_of_the_standard_library(fresh):
    ran = good(fresh.run('macro_rules! println { ($($t:tt)*) => { std::print!("own {}\\n", format!($($t)*)) } }\nfn by_an_item() { println!("item"); }\nby_an_item(); println!("cell");'))
    assert ran.stream() == "own item\nown cell\n"
    assert good(fresh.run('println!("later"); eprintln!("plain");')).stream() == "own later\n"


def test_what_a_macro_makes_is_visible_later(notebook):
    good(notebook.run("macro_rules! mk { ($n:ident, $v:expr) => { fn $n() -> i32 { $v } } }\nmk!(eleven, 11);"))
    assert notebook.value("eleven()") == "11"
    good(notebook.run("mk!(twelve, eleven() + 1);"))
    assert notebook.value("twelve()") == "12"
    good(notebook.run("macro_rules! newtype { ($($name:ident: $t:ty),*) => { $( #[derive(Debug, Clone, Copy)] struct $name($t); )* } }\nnewtype!(Meters: f64, Pieces: u32);"))
    assert notebook.value("(Meters(2.5), Pieces(3).0)") == "(Meters(2.5), 3)"
    good(notebook.run("macro_rules! record { ($s:ident { $($f:ident: $t:ty),* }) => { struct $s { $($f: $t),* } impl $s { $(fn $f(&self) -> $t { self.$f.clone() })* } } }\nrecord!(Settings { lr: f64, label: String });"))
    assert notebook.value("Settings { lr: 0.1, label: \"x\".into() }.lr()") == "0.1"


def test_files_are_looked_for_in_the_notebooks_folder(tmp_path):
    (tmp_path / "hello.rs").write_text("pub fn greet() -> &'static str { \"hi\" }")
    (tmp_path / "note.txt").write_text("text")
    with Kernel(cwd=str(tmp_path)) as kernel:
        good(kernel.run("mod hello;"))
        assert kernel.value("hello::greet()") == '"hi"'
        assert kernel.value("include_str!(\"note.txt\")") == '"text"'
        good(kernel.run("const NOTE: &str = include_str!(\"note.txt\");"))
        assert kernel.value("NOTE.len()") == "4"


def test_a_file_of_a_module_is_read_with_the_modules_in_its_folder_and_anew_when_it_changes(tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes.rs").write_text("pub mod round;\npub static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);\npub fn sides() -> u32 { super::by_the_notebook() }")
    (tmp_path / "shapes" / "round.rs").write_text("pub mod deep { pub const N: u32 = 7; }\npub fn area(r: u32) -> u32 { 3 * r * r }")
    with Kernel(cwd=str(tmp_path)) as kernel:
        good(kernel.run("fn by_the_notebook() -> u32 { 4 }\nmod shapes;"))
        assert kernel.value("(shapes::sides(), shapes::round::area(2), shapes::round::deep::N)") == "(4, 12, 7)"
        good(kernel.run("shapes::MADE.store(3, std::sync::atomic::Ordering::SeqCst);\nfn unrelated() {}"))
        (tmp_path / "shapes" / "round.rs").write_text("pub fn area(r: u32) -> u32 { 4 * r * r }")
        good(kernel.run("mod shapes;"))
        assert kernel.value("(shapes::round::area(2), shapes::MADE.load(std::sync::atomic::Ordering::SeqCst))") == "(16, 3)"
        (tmp_path / "shapes.rs").write_text("pub fn sides() -> u32 {\n    \"four\"\n}")
        assert "shapes.rs:2:5" in plain(kernel.run("mod shapes;").error)


MANY_FILES = {
    "shop.rs": "pub mod stock;\nmod hidden { pub mod till; }\n#[path = \"elsewhere/odd.rs\"] pub mod odd;\npub fn paid() -> u32 { hidden::till::PAID.fetch_add(1, std::sync::atomic::Ordering::SeqCst) }",
    "shop/stock.rs": "//! What there is.\npub mod shelf;\nuse std::sync::atomic::{AtomicU32, Ordering};\npub static COUNT: AtomicU32 = AtomicU32::new(0);\npub fn count() -> u32 { static CALLS: AtomicU32 = AtomicU32::new(10); COUNT.fetch_add(1, Ordering::SeqCst); CALLS.fetch_add(1, Ordering::SeqCst) }",
    "shop/stock/shelf/mod.rs": "use std::cell::Cell;\nthread_local! { pub static LAST: Cell<u8> = const { Cell::new(0) } }\npub fn next() -> u8 { LAST.set(LAST.get() + 1); LAST.get() }\npub fn line() -> (u32, u32) {\n    (line!(), dbg!(40 + 2))\n}",
    "shop/hidden/till.rs": "pub static PAID: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(100);",
    "elsewhere/odd.rs": "#[cfg(windows)]\npub static ODD: std::sync::Mutex<u8> = std::sync::Mutex::new(0);\n#[cfg(not(windows))]\npub static ODD: std::sync::Mutex<u8> = std::sync::Mutex::new(1);\n#[cfg(test)] mod tests { #[test] fn it_is_odd() { assert_eq!(super::ODD.lock().unwrap().clone() % 2, 1) } }",
}


def files(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("declared", ["mod shop;", "mod r#in { pub mod shop; pub use shop::*; }\nuse r#in::shop;"])
def test_a_static_of_any_file_of_a_module_lives_once(tmp_path, declared):
    files(tmp_path, MANY_FILES if declared == "mod shop;" else {f"in/{name}": text for name, text in MANY_FILES.items()})
    used = "(shop::stock::count(), shop::stock::shelf::next(), shop::paid(), { let mut odd = shop::odd::ODD.lock()?; *odd += 2; *odd })"
    with Kernel(cwd=str(tmp_path)) as kernel:
        ran = good(kernel.run(declared))
        assert "it_is_odd ... ok" in ran.stream() + ran.stream("stderr"), ran.messages
        assert kernel.value(used) == "(10, 1, 100, 3)"
        good(kernel.run("fn unrelated() {}"))
        assert kernel.value(used) == "(11, 2, 101, 5)", "another item leaves statics alone"
        assert "starts again" not in good(kernel.run(declared)).stream("stderr")
        assert kernel.value(used) == "(12, 3, 102, 7)", "the same files again change nothing"
        shelf = next(tmp_path.rglob("shelf/mod.rs"))
        shelf.write_text(shelf.read_text().replace("+ 1)", "+ 5)"))
        assert "starts again" not in good(kernel.run(declared)).stream("stderr")
        assert kernel.value(used) == "(13, 8, 103, 9)", "an edited function of a file leaves its statics alone"
        shelf.write_text(shelf.read_text().replace("Cell::new(0)", "Cell::new(100)"))
        assert "stock::shelf::LAST` starts again" in good(kernel.run(declared)).stream("stderr")
        assert kernel.value(used) == "(14, 105, 104, 11)"


def test_lines_of_any_file_of_a_module_are_told_as_the_users(tmp_path):
    files(tmp_path, MANY_FILES)
    with Kernel(cwd=str(tmp_path)) as kernel:
        good(kernel.run("mod shop;"))
        ran = good(kernel.run("shop::stock::shelf::line()"))
        assert ran.value == "(5, 42)" and "[shop/stock/shelf/mod.rs:5] 40 + 2 = 42" in ran.stream("stderr")
        shelf = tmp_path / "shop/stock/shelf/mod.rs"
        shelf.write_text(shelf.read_text() + "\npub fn other() {}")
        good(kernel.run("mod shop;"))
        assert "[shop/stock/shelf/mod.rs:5] 40" in good(kernel.run("shop::stock::shelf::line()")).stream("stderr")
        shelf.write_text("pub fn next() -> u8 {\n    panic!(\"empty\")\n}")
        good(kernel.run("mod shop;"))
        error = plain(kernel.run("shop::stock::shelf::next()").error)
        assert "Panic at shop/stock/shelf/mod.rs:2:5" in error and "2 |     panic!(" in error, error
        shelf.write_text("pub fn next() -> u8 {\n    \"one\"\n}")
        assert "shop/stock/shelf/mod.rs:2:5" in plain(kernel.run("mod shop;").error)
        shelf.write_text("pub fn next() -> u8 { super::super::super::of_the_notebook() }")
        good(kernel.run("fn of_the_notebook() -> u8 { 7 }\nmod shop;"))
        said = kernel.run("fn of_the_notebook() -> u16 { 8 }").stream("stderr")
        assert "`shop` of cell" in said and "no longer compiles" in said, said
        good(kernel.run("fn of_the_notebook() -> u8 { 9 }"))
        assert kernel.value("shop::stock::shelf::next()") == "9"
        shelf.unlink()
        error = plain(kernel.run("mod shop;").error)
        assert "shop/stock.rs:2" in error and "shop/stock/shelf" in error, error


def test_a_static_whose_type_beside_it_changes_starts_anew(tmp_path):
    """The old value would be read with the new layout."""
    with Kernel(cwd=str(tmp_path)) as kernel:
        for wrapped in ["mod held {{ {} }}", "fn held() -> u64 {{ {} HELD.lock().unwrap().a.into() }}"]:
            text = "pub struct Pair {{ pub a: {0}, pub b: [{0}; 3] }} pub static HELD: std::sync::Mutex<Pair> = std::sync::Mutex::new(Pair {{ a: 7, b: [7; 3] }});"
            good(kernel.run(wrapped.format(text.format("u8"))))
            said = good(kernel.run(wrapped.format(text.format("u64")))).stream("stderr")
            assert "HELD` starts again" in said, said
        (tmp_path / "kept.rs").write_text("pub mod inner;")
        files(tmp_path, {"kept/inner.rs": text.format("u8")})
        good(kernel.run("mod kept;\nkept::inner::HELD.lock()?.a = 9;"))
        assert kernel.value("kept::inner::HELD.lock()?.a") == "9"
        files(tmp_path, {"kept/inner.rs": text.format("u64")})
        assert "kept::inner::HELD` starts again" in good(kernel.run("mod kept;")).stream("stderr")
        assert kernel.value("{ let held = kept::inner::HELD.lock()?; (held.a, held.b) }") == "(7, [7, 7, 7])"


@pytest.mark.parametrize("taken, other", [("not(windows)", "windows"), ("windows", "not(windows)")])
def test_of_statics_under_conditions_the_one_that_is_there_lives_once(notebook, taken, other):
    good(notebook.run(f"#[cfg({taken})] static HERE: std::sync::atomic::AtomicI8 = std::sync::atomic::AtomicI8::new(1);\n#[cfg({other})] static THERE: std::sync::atomic::AtomicI8 = std::sync::atomic::AtomicI8::new(2);"))
    name = "HERE" if taken.startswith("not") else "THERE"
    before = int(notebook.value(f"{name}.fetch_add(1, std::sync::atomic::Ordering::SeqCst)"))
    good(notebook.run("struct Unrelated;"))
    assert int(notebook.value(f"{name}.load(std::sync::atomic::Ordering::SeqCst)")) == before + 1


def test_an_included_file_may_have_modules_in_files(tmp_path):
    files(tmp_path, {"lib/tools.rs": "pub mod saw;\npub fn cut() -> u8 { saw::cuts() }", "lib/saw.rs": "pub fn cuts() -> u8 { static N: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(4); N.fetch_add(1, std::sync::atomic::Ordering::SeqCst) }"})
    with Kernel(cwd=str(tmp_path)) as kernel:
        good(kernel.run("include!(\"lib/tools.rs\");"))
        assert kernel.value("cut()") == "4"
        good(kernel.run("struct Unrelated;"))
        assert kernel.value("(cut(), saw::cuts())") == "(5, 6)"


def test_an_included_file_defines_what_it_has(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "tools.rs").write_text("use std::sync::atomic::{AtomicU32, Ordering};\nconst TEXT: &str = include_str!(\"text.txt\");\nstruct Tool { n: u32 }\nimpl Tool { fn next(&self) -> u32 { static N: AtomicU32 = AtomicU32::new(5); N.fetch_add(self.n, Ordering::SeqCst) } }")
    (tmp_path / "lib" / "text.txt").write_text("abc")
    (tmp_path / "value.rs").write_text("[1, 2, 3]")
    with Kernel(cwd=str(tmp_path)) as kernel:
        good(kernel.run("include!(\"lib/tools.rs\");"))
        assert kernel.value("(TEXT, Tool { n: 1 }.next())") == '("abc", 5)'
        good(kernel.run("include!(\"lib/tools.rs\");"))
        assert kernel.value("Tool { n: 1 }.next()") == "6", "the same file again changes nothing"
        assert kernel.value("include!(\"value.rs\")") == "[1, 2, 3]"


def test_places_are_told_as_the_users(notebook):
    ran = good(notebook.run("let x = 1;\nlet y = dbg!(x + 1);\nfile!()"))
    number = ran.reply["content"]["execution_count"]
    assert f"[In [{number}]:2] x + 1 = 2" in ran.stream("stderr") and ran.value == f'"In [{number}]"'


def test_a_program_sees_one_name_for_itself_in_items_and_in_statements(notebook):
    """Log filters take the name, and people read it in the names of types."""
    items = "mod geo { pub struct Point; pub fn here() -> &'static str { module_path!() } }"
    good(notebook.run(f"struct Point;\n{items}\nfn here() -> (&'static str, u32) {{ (module_path!(), line!()) }}"))
    assert notebook.value("(module_path!(), here(), geo::here())") == '("this_notebook", ("this_notebook", 3), "this_notebook::geo")'
    types = notebook.value("use std::any::{type_name, type_name_of_val as of};\n(type_name::<Point>(), of(&geo::Point), type_name::<wavemesh::mesh::Mesh>())")
    assert types.split('"')[1::2] == ["this_notebook::Point", "this_notebook::geo::Point", "wavemesh::mesh::Mesh"]
    closure = notebook.value("of(&|| 1)").strip('"')
    assert closure.startswith("this_notebook::") and "__wm" not in closure


def test_no_internal_name_is_in_what_a_wrong_cell_is_told(notebook):
    good(notebook.run("struct Kilo(f32);\nmod geo { pub struct Point; }\nfn weigh(_: Kilo) {}\ntrait Area { fn area(&self) -> f32; }"))
    wrong = ["weigh(geo::Point)", "weigh(shapes::sphere(1.0))", "geo::Point.area()", "let k: Kilo = 1;", "fn f() -> impl Area { geo::Point }", "geo::Pint"]
    for cell in wrong:
        told = plain(notebook.run(cell).reply["content"])
        assert not re.search(r"wavemesh_dylib|wavemesh_cell|__wm|this_notebook|the_cell|/tmp", told), told
    panics = ["None::<geo::Point>.unwrap();", "fn deep() { panic!(\"no\") }\ndeep();", "std::thread::spawn(|| panic!(\"no\")).join().unwrap();"]
    for cell in panics:
        ran = notebook.run(cell)
        told = plain(ran.reply["content"]) + ran.stream("stderr")
        assert not re.search(r"wavemesh_dylib|wavemesh_cell|__wm|this_notebook|the_cell|/tmp", told), told


# 2. Crates live once.


def crate(folder, name, code, features=""):
    (folder / name / "src").mkdir(parents=True, exist_ok=True)
    (folder / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2024"\n[features]\n{features}\n')
    (folder / name / "src" / "lib.rs").write_text(code)
    return f'{{ path = "{folder / name}"'


def test_a_crate_has_one_state_for_all_cells(fresh, tmp_path):
    counter = crate(tmp_path, "counter", "use std::sync::atomic::{AtomicU32, Ordering};\nstatic N: AtomicU32 = AtomicU32::new(0);\npub fn bump() -> u32 { N.fetch_add(1, Ordering::SeqCst) }")
    other = crate(tmp_path, "other", "pub fn two() -> u32 { 2 }")
    good(fresh.run(f":dep counter = {counter} }}\ncounter::bump();"))
    assert fresh.value("counter::bump()") == "1"
    good(fresh.run("fn by_an_item() -> u32 { counter::bump() }"))
    assert fresh.value("by_an_item()") == "2"
    good(fresh.run(f":dep other = {other} }}"))
    assert fresh.value("(other::two(), counter::bump(), by_an_item())") == "(2, 3, 4)"


def test_crates_are_added_as_cargo_add_does_and_over_several_lines(fresh, tmp_path):
    tool = crate(tmp_path, "tool", "pub fn one() -> u32 { 1 }").split('"')[1]
    other = crate(tmp_path, "other", "pub fn two() -> u32 { 2 }").split('"')[1]
    good(fresh.run(f":dep cargo add tool --path {tool}\n:dep renamed = {{\n  package = \"other\",\n  path = \"{other}\",\n}}"))
    assert fresh.value("(tool::one(), renamed::two())") == "(1, 2)"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (":dep tool = { path = \"nowhere\" }", "there is no crate in "),
        (":dep tool = { git = \"file:///nonexistent/tool\" }", "/nonexistent/tool"),
        (":dep tool --dev", "`--dev` has no meaning here"),
        (":dep tool = { version = ", "`{ version =`"),
    ],
)
def test_a_crate_that_cannot_be_had_says_why_and_nothing_of_the_kernels_own(notebook, line, said):
    error = notebook.run(line).error
    told = "\n".join(error["traceback"])
    assert said in told and "wavemesh-kernel-" not in told and "`cell" not in told, told
    assert notebook.value("1 + 1") == "2"


@pytest.fixture(scope="module")
def with_crates():
    """A notebook with the crates of the tests below, which one call of cargo builds."""
    crates = ["tokio", "rayon", "log", "serde_json", "anyhow", "bitflags", "lazy_static"]
    lines = [f":dep {name} = \"*\"" for name in crates] + [":dep serde = { version = \"1\", features = [\"derive\"] }"]
    with Kernel() as kernel:
        good(kernel.run("\n".join(lines), timeout=600))
        good(kernel.run("use anyhow::{Context, bail, ensure};\nuse std::sync::Mutex;"))
        yield kernel


def test_crates_that_are_finished_do_not_wait_for_the_build_of_another_notebook(with_crates):
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with open(cache / "wavemesh/target/debug/.cargo-lock") as lock, Kernel() as other:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as cargo does during a build
        good(other.run(":dep lazy_static = \"*\"\n:dep anyhow = \"*\""))
        assert other.value("anyhow::anyhow!(\"there\").to_string()") == '"there"'


def test_the_causes_of_an_error_are_told_and_no_frames_of_the_kernel(with_crates):
    good(with_crates.run("fn reads() -> anyhow::Result<String> { std::fs::read_to_string(\"/nonexistent/x\").context(\"reading\").context(\"starting\") }"))
    error = with_crates.run("reads()?").error
    assert error["evalue"].startswith("starting: reading: No such file"), error
    error = with_crates.run("reads().unwrap()").error
    assert "0: reading" in error["evalue"] and "1: No such file" in error["evalue"]
    assert "wavemesh" not in error["evalue"] and "backtrace" not in error["evalue"], error


def test_a_task_of_one_cell_is_joined_in_the_next(with_crates):
    good(with_crates.run("let task = tokio::spawn(async { tokio::time::sleep(std::time::Duration::from_millis(20)).await; 5 });"))
    assert with_crates.value("task.await?") == "5"
    assert with_crates.value("tokio::join!(async { 1 }, async { 2 })") == "(1, 2)"


def test_an_item_may_name_the_runtime(with_crates):
    good(with_crates.run("async fn later(n: u64) -> u64 { tokio::time::sleep(std::time::Duration::from_millis(n)).await; n }"))
    assert with_crates.value("(later(1).await, later(2).await)") == "(1, 2)"


def test_a_runtime_and_a_channel_are_kept_in_variables(with_crates):
    good(with_crates.run("let own_runtime = tokio::runtime::Runtime::new()?;\nlet (tx, mut rx) = tokio::sync::mpsc::channel::<i32>(4);"))
    good(with_crates.run("own_runtime.spawn({ let tx = tx.clone(); async move { tx.send(7).await.unwrap(); } });"))
    assert with_crates.value("rx.recv().await") == "Some(7)"
    assert with_crates.value("own_runtime.block_on(async { 9 })") == "9"


def test_rayon_has_one_pool(with_crates):
    good(with_crates.run("rayon::ThreadPoolBuilder::new().num_threads(3).build_global()?;\nfn threads() -> usize { rayon::current_num_threads() }"))
    assert with_crates.value("(rayon::current_num_threads(), threads())") == "(3, 3)"


def test_a_logger_stays_installed(with_crates):
    good(with_crates.run("""static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
struct Keep;
impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata) -> bool { true }
    fn log(&self, record: &log::Record) { LINES.lock().unwrap().push(record.args().to_string()); }
    fn flush(&self) {}
}
log::set_logger(&Keep).unwrap();
log::set_max_level(log::LevelFilter::Debug);"""))
    good(with_crates.run("fn says() { log::debug!(\"by an item\"); }"))
    assert with_crates.value("says(); log::info!(\"later\"); (log::max_level(), LINES.lock().unwrap().clone())") == '(Debug, ["by an item", "later"])'


def test_derived_traits_are_those_of_the_crate_that_asks_for_them(with_crates):
    good(with_crates.run("#[derive(serde::Serialize, serde::Deserialize, Debug)]\nstruct Saved { n: u8, name: String }"))
    assert with_crates.value("serde_json::to_string(&Saved { n: 1, name: \"x\".into() })?") == '"{\\"n\\":1,\\"name\\":\\"x\\"}"'
    assert with_crates.value("serde_json::from_str::<Saved>(r#\"{\"n\": 2, \"name\": \"y\"}\"#)?.n") == "2"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("std::fs::read_to_string(\"/nope\").context(\"reading the file\")?;", "reading the file: No such file or directory (os error 2)"),
        ("let kept = 1;\nbail!(\"no {}\", 42);", "no 42"),
        ("let kept = 1;\nensure!(kept > 5, \"kept is {kept}\");", "kept is 1"),
        ("async fn two() -> i32 { 2 }\nlet kept = 1;\nensure!(two().await == 3, \"async {}\", two().await);", "async 2"),
        ("async fn two() -> i32 { 2 }\nlet kept = 1;\nif two().await == 2 { bail!(\"met {}\", two().await) }", "met 2"),
        ("let kept = 1;\nanyhow::ensure!(kept + 1 == 3);", "Condition failed: `kept + 1 == 3` (2 vs 3)"),
        ("let kept = 1;\nlet other = match None::<i32> { Some(n) => n, None => bail!(\"nothing\") };", "nothing"),
        ("let kept = 1;\nif kept == 1 { return Err(\"early\".into()); }", "early"),
        ("fn fails() -> anyhow::Result<()> { bail!(\"inner\") }\nlet kept = 1;\nfails().context(\"outer\")?;", "outer: inner"),
    ],
)
def test_an_error_may_leave_a_cell_as_it_leaves_a_function(with_crates, cell, said):
    error = with_crates.run(cell).error
    assert error["evalue"] == said
    line = next(number for number, text in enumerate(cell.split("\n"), 1) if any(word in text for word in ("?;", "!(", "Err(")) and "fn " not in text)
    assert f":{line}:" in plain(error).splitlines()[0]
    if "kept" in cell:
        assert with_crates.value("kept") == "1"


@pytest.mark.parametrize(
    "cell",
    [
        "{ println!(\"said\"); panic!(\"boom\") }",
        "{ println!(\"said\"); if true { panic!(\"boom\") } else { unreachable!() } }",
        "loop { println!(\"said\"); panic!(\"boom\") }",
        "match std::env::args().count() { _ => { println!(\"said\"); panic!(\"boom\") } }",
    ],
)
def test_a_cell_may_end_in_a_block_that_never_has_a_value(with_crates, cell):
    ran = with_crates.run(cell)
    assert ran.error["evalue"] == "boom" and ran.stream() == "said\n"


def test_a_crate_that_has_nothing_by_default_is_that_of_the_library(fresh):
    ran = fresh.run(":dep bitflags = \"2\"\nbitflags::bitflags! { #[derive(Debug)] struct Flags: u8 { const A = 1; } }\nFlags::A.bits()")
    told = ran.stream("stderr") + "".join(content["data"]["text/plain"] for content in ran.of("display_data", "update_display_data"))
    assert ran.value == "1" and "apart" not in told and "Compiling bitflags" not in told, told


def test_the_lock_of_standard_output_ends_with_its_cell(with_crates):
    ran = good(with_crates.run("use std::io::Write;\nlet mut out = std::io::stdout().lock();\nwriteln!(out, \"written\")?;"))
    assert ran.stream() == "written\n" and "`out` lives in this cell only: it locks a standard stream" in ran.stream("stderr")
    assert good(with_crates.run("std::thread::spawn(|| println!(\"of a thread\")).join().unwrap();")).stream() == "of a thread\n"


def test_a_cell_may_return(with_crates):
    assert good(with_crates.run("let early = 2;\nfor n in 0..5 { if n == early { println!(\"at {n}\"); return; } }\nprintln!(\"never\");")).stream() == "at 2\n"
    good(with_crates.run("if early == 2 { return Ok(()); }\nunreachable!();"))
    assert with_crates.value("early") == "2"


def test_items_that_macros_of_crates_make_are_visible_later(with_crates):
    good(with_crates.run("bitflags::bitflags! { #[derive(Debug, Clone, Copy)] struct Flags: u8 { const A = 1; const B = 2; } }"))
    assert with_crates.value("Flags::A | Flags::B") == "Flags(A | B)"
    good(with_crates.run("use lazy_static::lazy_static;\nlazy_static! { static ref TABLE: Mutex<Vec<i32>> = Mutex::new(vec![1]); }\nTABLE.lock().unwrap().push(2);"))
    good(with_crates.run("fn changes_the_definitions() {}"))
    assert with_crates.value("TABLE.lock().unwrap().clone()") == "[1, 2]"


def test_a_crate_that_the_library_holds_otherwise_is_built_apart_and_said(fresh):
    good(fresh.run(":dep serde = { version = \"1\", features = [\"derive\"] }\n:dep serde_json = \"1\"\n#[derive(serde::Serialize)]\nstruct Told { n: u8 }\nlet made = serde_json::json!({\"z\": 1});\nlet untouched = 5;", timeout=600))
    said = good(fresh.run(":dep serde_json = { version = \"1\", features = [\"preserve_order\"] }\nuse serde_json::{Value, json};\nfn parsed(text: &str) -> Value { serde_json::from_str(text).unwrap() }", timeout=600)).stream("stderr")
    assert "serde_json is rebuilt: the library holds it without its feature preserve_order" in said and "`made`" in said
    assert fresh.value("json!({\"b\": 1, \"a\": 2}).to_string()") == '"{\\"b\\":1,\\"a\\":2}"'
    assert fresh.value("parsed(\"{\\\"z\\\": 1, \\\"a\\\": 2}\").to_string()") == '"{\\"z\\":1,\\"a\\":2}"'
    assert fresh.value("(serde_json::to_string(&Told { n: 3 })?, untouched)") == '("{\\"n\\":3}", 5)'
    assert "its crate was rebuilt" in plain(fresh.run("made").error)


def test_a_crate_that_is_built_again_for_more_features_is_said_with_what_it_costs(fresh, tmp_path):
    source = "pub struct Tool(pub u8);\n#[cfg(feature = \"more\")]\npub fn more() -> u8 { 9 }"
    tool = crate(tmp_path, "tool", source, features="more = []")
    good(fresh.run(f":dep tool = {tool} }}\nlet held = tool::Tool(1);\nlet plain_value = 3;"))
    said = good(fresh.run(f":dep tool = {tool}, features = [\"more\"] }}\ntool::more();")).stream("stderr")
    assert "tool is rebuilt" in said and "more" in said and "`held`" in said
    assert fresh.value("(tool::more(), plain_value)") == "(9, 3)"
    assert "its crate was rebuilt" in plain(fresh.run("held").error)


# Features that evcxr's users know.


def test_a_type_that_shows_itself_as_evcxr_has_it_is_shown_so(notebook):
    good(notebook.run('struct Matrix(i32);\nimpl Matrix { fn evcxr_display(&self) { println!("EVCXR_BEGIN_CONTENT text/html\\n<b>{}</b>\\nEVCXR_END_CONTENT", self.0); } }'))
    shown = good(notebook.run("let matrix = Matrix(3);\nmatrix")).of("display_data", "execute_result")
    assert [content["data"]["text/html"] for content in shown] == ["<b>3</b>"]
    good(notebook.run("use wavemesh::prelude::*;\nbackend_info()"))
    assert good(notebook.run("Tensor::new(&[1f32], &Device::Cpu)?")).of("execute_result")[0]["data"]["text/html"]
    shown = good(notebook.run("matrix")).of("display_data", "execute_result")
    assert [content["data"]["text/html"] for content in shown] == ["<b>3</b>"], "with the library's prelude among the notebook's items"
    assert notebook.value("matrix.evcxr_display(); matrix.0") == "3"
    assert notebook.value("[1, 2].as_slice()") == "[1, 2]"
