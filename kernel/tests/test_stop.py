"""The stop button keeps variables: the code notices the stop, or the cell's thread is left behind; force is the last step, and only after a
second stop."""

import re
import time

import psutil
import pytest
from driver import Kernel, Ran

BEGUN = 'println!("begun");\n'


@pytest.fixture(scope="module")
def notebook():
    """Its cells have much time to notice a stop, so that only code that notices it ends, on a busy machine too."""
    with Kernel() as kernel:
        kernel.run(":grace 600")
        kernel.value("struct Loud(&'static str);\nimpl Drop for Loud { fn drop(&mut self) { println!(\"dropped {}\", self.0); } }")
        yield kernel


@pytest.fixture
def impatient(notebook):
    """The same kernel with little time, for code that notices nothing."""
    notebook.run(":grace 0.5")
    yield notebook
    notebook.run(":grace 600")


@pytest.fixture
def quick(fresh):
    fresh.run(":grace 0.5")
    return fresh


def plain(error):
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))


def stop(kernel, code, times=1, **options):
    """Runs a cell and stops it after it has printed something; returns everything that it did."""
    msg_id = kernel.send(code, **options)
    messages = kernel.wait_until_running(msg_id)
    for _ in range(times):
        kernel.control("interrupt_request")
    messages += kernel.iopub(msg_id)
    ran = Ran(kernel.shell(msg_id), messages)
    assert ran.status == "error" and ran.error["ename"] == "Interrupted", ran.reply["content"]
    kernel.silence()
    return ran


def child(kernel):
    """The process that runs cells."""
    return kernel.value("std::process::id()")


# Code that notices a stop.

NOTICED = {
    "prints": "loop { println!(\"again\"); }",
    "prints to standard error": "loop { eprint!(\".\"); }",
    "prints of an item": "fn chatter() -> u8 { loop { println!(\"again\"); } }\nchatter();",
    "a long sleep": "std::thread::sleep(std::time::Duration::from_secs(100_000));",
    "short sleeps": "loop { std::thread::sleep(std::time::Duration::from_millis(1)); }",
    "a sleep of an item": "fn doze() { std::thread::sleep(std::time::Duration::from_secs(100_000)) }\ndoze();",
    "an imported sleep": "use std::{thread::sleep, time::Duration};\nloop { sleep(Duration::MAX); }",
    "a progress bar": "let mut turns = 0u64;\nfor i in wavemesh::notebook::progress(0..u64::MAX) { turns = std::hint::black_box(turns ^ i); }",
    "a progress bar around sleeps": "for _ in wavemesh::notebook::progress(0..100_000_000u64) { std::thread::sleep(std::time::Duration::from_millis(1)); }",
    "a mutex locked twice": "let lock = std::sync::Mutex::new(1);\nlet first = lock.lock()?;\nlet second = lock.lock()?;\nprintln!(\"{first} {second}\");",
    "a lock for reading": "let lock = std::sync::RwLock::new(1);\nlet first = lock.write()?;\nprintln!(\"{first} {}\", lock.read()?);",
    "a lock for writing": "let lock = std::sync::RwLock::new(1);\nlet first = lock.read()?;\n*lock.write()? += *first;",
    "a loop that asks": "loop { check_interrupt()?; }",
    "a loop of the library": "let ball = wavemesh::sdf::shapes::sphere(0.7).to_mesh(24)?;\nloop { wavemesh::sdf::SdfGrid::from_mesh(&ball, 48)?; }",
    "a sleep behind a call that catches unwinding": "for _ in 0..3 { let _ = std::panic::catch_unwind(|| std::thread::sleep(std::time::Duration::from_secs(100_000))); }\nprintln!(\"after\");",
    "a thread of the cell that prints": "std::thread::scope(|scope| { scope.spawn(|| loop { println!(\"again\"); }); });",
    "a thread of the cell that sleeps": "std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(100_000))).join().unwrap();",
    "a thread that waits for itself": "std::thread::park();",
    "a condition": "let pair = (std::sync::Mutex::new(false), std::sync::Condvar::new());\nlet mut guard = pair.0.lock()?;\nwhile !*guard { guard = pair.1.wait(guard)?; }",
    "a condition that is looked at": "let pair = (std::sync::Mutex::new(false), std::sync::Condvar::new());\nlet guard = pair.1.wait_while(pair.0.lock()?, |done| !*done)?;\nprintln!(\"{guard}\");",
    "a condition with a time": "let pair = (std::sync::Mutex::new(false), std::sync::Condvar::new());\nlet _end = pair.1.wait_timeout(pair.0.lock()?, std::time::Duration::from_secs(100_000))?;",
    "a condition of an item": "fn waits(pair: &(std::sync::Mutex<u8>, std::sync::Condvar)) -> u8 { *pair.1.wait(pair.0.lock().unwrap()).unwrap() }\nloop { waits(&(std::sync::Mutex::new(0), std::sync::Condvar::new())); }",
    "a join": "std::thread::spawn(|| loop { std::thread::park(); }).join().unwrap();",
    "a connection": "std::net::TcpListener::bind(\"127.0.0.1:0\")?.accept()?;",
    "connections": "for stream in std::net::TcpListener::bind(\"127.0.0.1:0\")?.incoming() { stream?; }",
    "a socket": "use std::io::Read;\nlet listener = std::net::TcpListener::bind(\"127.0.0.1:0\")?;\nlet mut stream = std::net::TcpStream::connect(listener.local_addr()?)?;\nstream.read_exact(&mut [0; 4])?;",
    "lines of a socket": "use std::io::BufRead;\nlet listener = std::net::TcpListener::bind(\"127.0.0.1:0\")?;\nlet stream = std::net::TcpStream::connect(listener.local_addr()?)?;\nfor line in std::io::BufReader::new(&stream).lines() { println!(\"{}\", line?); }",
    "a datagram": "std::net::UdpSocket::bind(\"127.0.0.1:0\")?.recv_from(&mut [0; 4])?;",
    "a program": "std::process::Command::new(\"sleep\").arg(\"600\").status()?;",
    "programs": "for _ in 0..1000 { std::process::Command::new(\"sh\").args([\"-c\", \"sleep 600; true\"]).status()?; }",
    "what a program says": "std::process::Command::new(\"sleep\").arg(\"600\").output()?;",
    "a line of a program": "use std::io::BufRead;\nlet mut program = std::process::Command::new(\"sleep\").arg(\"600\").stdout(std::process::Stdio::piped()).spawn()?;\nlet out = program.stdout.take().unwrap();\nlet mut line = String::new();\nstd::io::BufReader::new(out).read_line(&mut line)?;\nprogram.wait()?;",
    "standard output under a lock": "use std::io::Write;\nlet mut out = std::io::stdout().lock();\nloop { writeln!(out, \"again\")?; }",
    "a channel": "let (send, receive) = std::sync::mpsc::channel::<u8>();\nreceive.recv()?;\ndrop(send);",
    "a channel that is iterated": "let (send, receive) = std::sync::mpsc::channel::<u8>();\nfor got in &receive { println!(\"{got}\"); }\ndrop(send);",
    "a channel that is summed up": "let (send, receive) = std::sync::mpsc::channel::<u64>();\nlet total: u64 = receive.iter().map(|n| n + 1).sum();\nprintln!(\"{total}\");\ndrop(send);",
    "a channel with a time": "let (send, receive) = std::sync::mpsc::channel::<u8>();\nlet _got = receive.recv_timeout(std::time::Duration::from_secs(100_000));\ndrop(send);\nloop { println!(\"again\"); }",
    "a channel without room": "let (send, receive) = std::sync::mpsc::sync_channel::<Vec<u8>>(0);\nreceive.recv()?;\ndrop(send);",
    "a channel with some room": "let (send, receive) = std::sync::mpsc::sync_channel::<u8>(2);\nreceive.recv()?;\ndrop(send);",
    "room in a channel": "let (send, receive) = std::sync::mpsc::sync_channel::<Vec<u8>>(1);\nfor n in 0..9 { send.send(vec![n; 100])?; }\ndrop(receive);",
    "a taker of a channel": "let (send, receive) = std::sync::mpsc::sync_channel::<Vec<u8>>(0);\nsend.send(vec![1; 100])?;\ndrop(receive);",
    "a channel whose sender sleeps": "let (send, receive) = std::sync::mpsc::channel::<u8>();\nstd::thread::spawn(move || loop { std::thread::sleep(std::time::Duration::from_secs(100_000)); let _ = send.send(1); });\nreceive.recv()?;",
}


@pytest.mark.parametrize("code", NOTICED.values(), ids=NOTICED)
def test_a_stop_is_noticed_and_keeps_everything(notebook, code):
    before = child(notebook)
    notebook.value("let mut held = vec![1, 2];\nlet unheld = String::from(\"u\");")
    # The library is loaded a moment after the start.
    ran = stop(notebook, f"held.push(3);\nlet bound = Box::new(7);\n{BEGUN}{code}")
    assert "lost" not in plain(ran.error) and "left behind" not in plain(ran.error)
    assert notebook.value("(&held, &unheld, &bound)") == '([1, 2, 3], "u", 7)'
    assert child(notebook) == before


def test_a_stop_unwinds_as_a_panic_does(notebook):
    ran = stop(notebook, f"let outer = Loud(\"outer\");\n{{ let inner = Loud(\"inner\");\n{BEGUN}loop {{ println!(\"again\"); }} }};")
    assert "dropped inner" in ran.stream() and "dropped outer" not in ran.stream()
    assert "panicked" not in ran.stream("stderr"), "it is no panic"
    assert "dropped outer" in notebook.run("drop(outer);").stream()


def test_a_value_that_goes_when_the_cell_winds_down_may_print_and_sleep(notebook):
    notebook.value("struct Slow;\nimpl Drop for Slow { fn drop(&mut self) { std::thread::sleep(std::time::Duration::from_millis(300)); println!(\"slow\"); } }")
    ran = stop(notebook, f"let kept = 5;\n{{ let slow = Slow; {BEGUN}loop {{ println!(\"again\"); }} }};")
    assert "slow" in ran.stream() and notebook.value("kept") == "5"


def test_a_cell_that_waits_for_input_is_stopped_and_keeps_everything(notebook):
    before = child(notebook)
    notebook.value("let held = vec![1];")
    notebook.value("struct Slow;\nimpl Drop for Slow { fn drop(&mut self) { std::thread::sleep(std::time::Duration::from_secs(1)); } }")
    for code in [
        # The question ends long before the cell has unwound; this is no second stop.
        "let bound = held.len();\n{ let slow = Slow; std::io::stdin().read_line(&mut String::new())? };",
        "let mut line = String::new();\nlet bound = held.len();\nstd::io::stdin().read_line(&mut line)?;",
        "let bound = held.len();\nfor line in std::io::stdin().lines() { println!(\"{}\", line.unwrap()); }",
    ]:
        msg_id = notebook.send(code, allow_stdin=True)
        notebook.client.get_stdin_msg(timeout=60)
        notebook.control("interrupt_request")
        assert notebook.shell(msg_id)["content"]["ename"] == "Interrupted"
        notebook.silence()
        assert notebook.value("(&held, bound)") == "([1], 1)"
    assert child(notebook) == before
    # The next cell can ask again.
    msg_id = notebook.send("let mut line = String::new();\nstd::io::stdin().read_line(&mut line)?;\nline.trim().to_owned()", allow_stdin=True)
    notebook.client.get_stdin_msg(timeout=60)
    notebook.client.input("hello")
    assert [m["content"]["data"]["text/plain"] for m in notebook.iopub(msg_id) if m["msg_type"] == "execute_result"] == ['"hello"']
    notebook.shell(msg_id)


def test_a_stopped_test_is_not_a_failed_one(notebook):
    ran = stop(notebook, "#[test]\nfn waits() { println!(\"begun\"); std::thread::sleep(std::time::Duration::from_secs(100_000)); }\n#[test]\nfn zzz_is_never_reached() {}")
    assert "FAILED" not in ran.stream() and "zzz" not in ran.stream()


RAYON = "use rayon::prelude::*;\n(0..100u64).into_par_iter().for_each(|i| WORK);\n"


@pytest.mark.parametrize("work", ["println!(\"{i}\")", "{ std::hint::black_box(i); std::thread::sleep(std::time::Duration::from_secs(100_000)) }"])
def test_threads_of_a_pool_notice_for_their_cell(notebook, work):
    before = child(notebook)
    notebook.run(":dep rayon = \"1\"")
    notebook.value("let held = vec![1];")
    stop(notebook, f"let bound = held.len();\n{BEGUN}loop {{ {RAYON.replace('WORK', work)} }}")
    assert notebook.value("(&held, bound)") == "([1], 1)" and child(notebook) == before


def test_threads_of_a_pool_that_notice_nothing_need_a_second_stop(quick):
    """They would continue the cell's work, and block the pool for other work."""
    quick.run(":dep rayon = \"1\"")
    quick.value("let held = vec![1];")
    msg_id = quick.send(f"{BEGUN}{RAYON.replace('WORK', 'loop { std::hint::black_box(i); }')}")
    quick.wait_until_running(msg_id)
    quick.control("interrupt_request")
    told = quick.wait_until_running(msg_id)[-1]["content"]["text"]
    assert "threads of a rayon pool work for it" in told and "stop it again ends its process" in told
    assert re.search(r"at In \[\d+\]:3:", told), told
    quick.control("interrupt_request")
    reply = quick.shell(msg_id)["content"]
    assert reply["ename"] == "Interrupted" and "Lost variables: held." in reply["evalue"]


# Code that notices nothing.

UNNOTICED = {
    "an empty loop": "loop {}",
    "arithmetic": "let mut i = 0u64; loop { i = std::hint::black_box(i + 1); }",
    "allocations": "loop { let mut v = Vec::new(); for i in 0..1000 { v.push(vec![i; 3]); } std::hint::black_box(v); }",
    "an item": "fn spin() -> u8 { let mut i = 0u8; loop { i = std::hint::black_box(i.wrapping_mul(3)); } }\nspin();",
    "a closure in an iterator": "let total: u64 = (0..u64::MAX).filter(|i| std::hint::black_box(i % 3) == 0).sum();\nprintln!(\"{total}\");",
    "unwinding that is caught": "loop { let _ = std::panic::catch_unwind(|| println!(\"again\")); }",
    "a barrier": "std::sync::Barrier::new(2).wait();",
    "a scope of threads": "let mut shared = vec![1];\nstd::thread::scope(|scope| { scope.spawn(|| { shared.push(2); loop { std::thread::park(); } }); });",
}


@pytest.mark.parametrize("code", UNNOTICED.values(), ids=UNNOTICED)
def test_what_notices_nothing_loses_what_it_had_in_hand(impatient, code):
    before = child(impatient)
    impatient.value("let in_hand = vec![1];\nlet elsewhere = vec![2];\nfn survives() -> i32 { 11 }")
    error = stop(impatient, f"let own = in_hand.len();\n{BEGUN}{code}").error
    assert "left behind" in error["evalue"] and "in_hand" in error["evalue"] and "own" in error["evalue"]
    assert "elsewhere" not in error["evalue"]
    assert impatient.value("(&elsewhere, survives())") == "([2], 11)"
    assert child(impatient) == before
    gone = impatient.run("in_hand.len()").error
    assert gone["ename"] == "E0425" and "`in_hand` is lost since cell" in plain(gone)


@pytest.mark.parametrize(
    "wait, line",
    [
        ("let barrier = std::sync::Barrier::new(2);\n\nbarrier.wait();", 4),
        ("let mut i = 0u64;\nloop { i = std::hint::black_box(i + 1); }", 3),
        ("fn turns() -> u8 {\n    let mut i = 1u8;\n    loop { i = std::hint::black_box(i.wrapping_mul(5)); }\n}\nturns();", 4),
    ],
)
def test_the_line_is_named_where_a_cell_is_left(impatient, wait, line):
    # A loop of few instructions is caught at any of them, some of which have no line of their own.
    for _ in range(5):
        error = stop(impatient, f"{BEGUN}{wait}").error
        assert re.search(rf"left behind at In \[\d+\]:{line}:\d+; ", error["evalue"])
        assert wait.splitlines()[line - 2].strip() in plain(error), "and shown"


def test_programs_that_a_cell_started_are_interrupted_and_others_are_not(notebook):
    notebook.value('let mut earlier = std::process::Command::new("sleep").arg("600").spawn()?;\nstd::thread::sleep(std::time::Duration::from_millis(50));')
    stop(notebook, f'let mut program = std::process::Command::new("sleep").arg("600").spawn()?;\n{BEGUN}program.wait()?;')
    assert notebook.value("program.wait()?.to_string()") == '"signal: 2 (SIGINT)"'
    assert notebook.value("earlier.try_wait()?.is_none()") == "true"
    notebook.value("earlier.kill()?;\nearlier.wait()?;")


def test_a_program_that_goes_on_after_a_stop_is_named(notebook):
    error = stop(notebook, "std::process::Command::new(\"sh\").args([\"-c\", \"trap '' INT; echo begun; exec sleep 987\"]).status()?;").error
    named = re.search(r"still running: `sleep 987` \(process (\d+)\)", error["evalue"])
    assert named, error["evalue"]
    psutil.Process(int(named[1])).kill()


def test_a_condition_is_unwound_with_its_mutex_locked_and_freed(notebook):
    """A thread that waits for a condition holds the mutex again after the wait, so unwinding frees it once."""
    notebook.value("use std::sync::{Arc, Condvar, Mutex};\nlet pair = Arc::new((Mutex::new(0), Condvar::new()));")
    stop(notebook, f"let mut guard = pair.0.lock().unwrap();\n{BEGUN}loop {{ guard = pair.1.wait(guard).unwrap(); *guard += 1; }}")
    assert notebook.value("let mut left = pair.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());\n*left += 10;\n*left") == "10"
    # The condition still works.
    notebook.value("pair.0.clear_poison();\nlet twin = pair.clone();")
    code = "std::thread::spawn(move || { *twin.0.lock().unwrap() = 7; twin.1.notify_all(); });\nlet now = *pair.1.wait_while(pair.0.lock().unwrap(), |value| *value != 7).unwrap();\nnow"
    assert notebook.value(code) == "7"


@pytest.mark.parametrize("make", ["channel::<Vec<i32>>()", "sync_channel::<Vec<i32>>(3)", "sync_channel::<Vec<i32>>(0)"])
def test_a_channel_works_on_after_a_stop_and_the_next_message_is_not_lost(notebook, make):
    """A stopped receiver has left the channel's queue: the one message wakes the present receiver."""
    notebook.value(f"let (send, receive) = std::sync::mpsc::{make};\nlet second = send.clone();")
    for _ in range(3):
        stop(notebook, f"{BEGUN}println!(\"{{:?}}\", receive.recv()?);")
    code = "let sender = second.clone();\nstd::thread::spawn(move || { std::thread::sleep(std::time::Duration::from_millis(200)); sender.send(vec![7]).unwrap(); });\nlet got = receive.recv()?;\ngot"
    for _ in range(2):
        assert notebook.value(code) == "[7]"


def test_a_cell_with_nothing_in_hand_loses_nothing(impatient):
    impatient.value("let apart = 4;")
    for _ in range(3):
        error = stop(impatient, f"{BEGUN}loop {{}}").error
        assert "no variable is lost" in error["evalue"]
    assert impatient.value("apart") == "4"


def test_the_thread_that_is_left_takes_no_time(quick):
    """Its clock stands still after it is parked."""
    stop(quick, f"{BEGUN}loop {{}}")
    process = psutil.Process(int(child(quick)))
    before = process.cpu_times().user
    quick.value("std::thread::sleep(std::time::Duration::from_secs(2));")
    assert process.cpu_times().user - before < 1.0, "a thread that runs takes 2 s"


def test_a_thread_that_comes_back_after_it_was_left_does_no_more(quick):
    quick.value("use std::sync::{Arc, Barrier, atomic::{AtomicU32, Ordering}};\nlet gate = Arc::new(Barrier::new(2));\nlet twin = gate.clone();")
    quick.value("static COUNT: AtomicU32 = AtomicU32::new(0);")
    stop(quick, f"{BEGUN}loop {{ gate.wait(); COUNT.fetch_add(1, Ordering::SeqCst); println!(\"came back\"); }}")
    ran = quick.run("twin.wait();\nstd::thread::sleep(std::time::Duration::from_millis(800));\nCOUNT.load(Ordering::SeqCst)")
    assert ran.status == "ok" and "came back" not in ran.stream()
    assert int(ran.value) <= 1, "it is parked where it comes back into the cell"


def test_a_printing_value_that_never_ends_does_not_take_standard_output_along(quick):
    """While its `Display` runs, `print!` holds standard output. So the thread is not left behind, and the kernel says what a second stop
    costs."""
    quick.value("struct Endless;\nimpl std::fmt::Display for Endless { fn fmt(&self, _: &mut std::fmt::Formatter) -> std::fmt::Result { loop {} } }\nlet lost = 1;")
    msg_id = quick.send(f"eprintln!(\"begun\");\nprintln!(\"{{}}\", Endless);")
    quick.wait_until_running(msg_id)
    quick.control("interrupt_request")
    told = quick.wait_until_running(msg_id)
    told = told[-1]["content"]["text"]
    assert "it holds standard output" in told and "stop it again ends its process" in told
    quick.control("interrupt_request")
    reply = quick.shell(msg_id)["content"]
    assert reply["ename"] == "Interrupted" and "Lost variables: lost." in reply["evalue"]
    quick.silence()
    assert quick.value("1 + 1") == "2"


def test_a_second_stop_does_not_wait_for_the_grace(fresh):
    fresh.run(":grace 3600")
    fresh.value("let apart = 4;")
    error = stop(fresh, f"{BEGUN}loop {{}}", times=2).error
    assert "left behind" in error["evalue"] and fresh.value("apart") == "4"


def test_what_is_of_the_thread_starts_anew_with_another(quick):
    quick.value("thread_local! { static HERE: std::cell::Cell<i32> = const { std::cell::Cell::new(1) } }\nHERE.set(5);\nstatic EVERYWHERE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(1);\nEVERYWHERE.store(6, std::sync::atomic::Ordering::SeqCst);")
    assert quick.value("HERE.get()") == "5", "one thread runs all cells"
    error = stop(quick, f"{BEGUN}loop {{}}").error
    assert "thread locals start again" in error["evalue"]
    assert quick.value("(HERE.get(), EVERYWHERE.load(std::sync::atomic::Ordering::SeqCst))") == "(1, 6)"


def test_values_of_one_thread_go_over_to_the_next(quick):
    quick.value("let shared = std::rc::Rc::new(std::cell::RefCell::new(vec![1]));\nlet twin = shared.clone();\nlet boxed: Box<dyn Fn(i32) -> i32> = Box::new(|x| x + 1);")
    stop(quick, f"{BEGUN}loop {{}}")
    assert quick.value("twin.borrow_mut().push(boxed(1));\nlet seen = format!(\"{:?} {}\", shared.borrow(), std::rc::Rc::strong_count(&shared));\nseen") == '"[1, 2] 2"'


def test_deep_recursion_is_still_told(quick):
    stop(quick, f"{BEGUN}loop {{}}")
    error = quick.run("fn deep(n: u64) -> u64 { if n == 0 { 0 } else { std::hint::black_box(deep(n - 1)) + 1 } }\ndeep(1_000_000)")
    assert error.value == "1000000", "the thread that takes over has as large a stack"


# A stop must do no harm here.


@pytest.mark.parametrize("code", ["loop { println!(\"again\"); }", "loop {}"])
def test_the_cell_after_is_not_stopped(impatient, code):
    stop(impatient, BEGUN + code)
    for _ in range(3):
        assert impatient.control("interrupt_request")["content"]["status"] == "ok"
    ran = impatient.run("println!(\"one\"); std::thread::sleep(std::time::Duration::from_millis(50)); check_interrupt()?;\nprintln!(\"two\");")
    assert ran.status == "ok" and ran.stream() == "one\ntwo\n"


def test_a_thread_of_an_earlier_cell_goes_on(notebook):
    notebook.value("use std::sync::atomic::{AtomicU64, Ordering::SeqCst};\nstatic BEATS: AtomicU64 = AtomicU64::new(0);\nstd::thread::spawn(|| loop { BEATS.fetch_add(1, SeqCst); std::thread::sleep(std::time::Duration::from_millis(5)); });")
    stop(notebook, f"{BEGUN}std::thread::sleep(std::time::Duration::from_secs(100_000));")
    assert notebook.value("let seen = BEATS.load(SeqCst);\nwhile BEATS.load(SeqCst) < seen + 3 { std::thread::sleep(std::time::Duration::from_millis(1)); }\ntrue") == "true"


def test_a_callback_of_c_is_not_unwound(notebook):
    """Its prints do not unwind through the C library; the print after it does."""
    ran = stop(
        notebook,
        "unsafe extern \"C\" { fn qsort(base: *mut i32, n: usize, size: usize, order: extern \"C\" fn(*const i32, *const i32) -> i32); }\n"
        "extern \"C\" fn order(a: *const i32, b: *const i32) -> i32 { println!(\"again\"); unsafe { (*a).cmp(&*b) as i32 } }\n"
        f"let kept = 3;\nlet mut list = [3, 1, 2];\n{BEGUN}loop {{ unsafe {{ qsort(list.as_mut_ptr(), 3, 4, order) }}; println!(\"sorted\"); }}",
    )
    assert "Terminated" not in plain(ran.error) and notebook.value("kept") == "3"


def test_a_stop_while_a_cell_is_compiled_keeps_everything(notebook):
    before = child(notebook)
    notebook.value("let held = vec![1];")
    endless = "#[allow(long_running_const_eval)]\nconst NEVER: u64 = { let mut i = 0u64; while i < u64::MAX { i += 1; } i };"
    msg_id = notebook.send(f"!echo begun\n{endless}\nheld.len() as u64 + NEVER")
    messages = notebook.wait_until_running(msg_id)
    notebook.control("interrupt_request")
    reply = notebook.shell(msg_id)["content"]
    assert reply["status"] == "error" and reply["ename"] == "Interrupted", (reply, messages)
    notebook.silence()
    assert notebook.value("held") == "[1]" and child(notebook) == before


@pytest.mark.parametrize("command", ["!echo begun; sleep 60", "!trap '' TERM; echo begun; sleep 60"])
def test_a_stopped_command_says_interrupted(impatient, command):
    impatient.value("let held = vec![1];")
    stop(impatient, command)
    assert impatient.value("held") == "[1]"


def test_a_stopped_dependency_says_interrupted(notebook, tmp_path):
    """Its build script waits, so the stop arrives while cargo runs."""
    crate, began = tmp_path / "slow_crate", tmp_path / "began"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "slow_crate"\nversion = "0.1.0"\nedition = "2024"\n')
    (crate / "src" / "lib.rs").write_text("")
    (crate / "build.rs").write_text(f'fn main() {{ std::fs::write({str(began)!r}, "").unwrap(); loop {{ std::thread::park(); }} }}'.replace("'", '"'))
    notebook.value("let held = vec![1];")
    msg_id = notebook.send(f":dep slow_crate = {{ path = {str(crate)!r} }}".replace("'", '"'))
    while not began.exists():
        time.sleep(0.01)
    notebook.control("interrupt_request")
    reply = notebook.shell(msg_id)["content"]
    assert reply["status"] == "error" and reply["ename"] == "Interrupted", reply
    notebook.silence()
    assert notebook.value("held") == "[1]"


# Futures. The first of these cells compiles their runtime.


@pytest.mark.parametrize(
    "wait",
    [
        "std::future::pending::<()>().await;",
        "tokio::time::sleep(std::time::Duration::from_secs(100_000)).await;",
        "loop { tokio::task::yield_now().await; }",
        "let task = tokio::spawn(std::future::pending::<()>());\nlet inner = 2;\ntask.await?;",
        "async fn waits() { std::future::pending::<()>().await }\nwaits().await;",
    ],
)
def test_a_stop_ends_an_await_and_keeps_everything(notebook, wait):
    before = child(notebook)
    notebook.value("let mut held = vec![1];")
    stop(notebook, f"held.push(2);\nlet bound = Box::new(7);\n{BEGUN}{wait}")
    assert notebook.value("(&held, &bound)") == "([1, 2], 7)"
    assert notebook.value("async { 5 }.await") == "5"
    assert child(notebook) == before
