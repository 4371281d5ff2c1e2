"""The Jupyter kernel over a long session: a thousand cells, interrupts, deaths of the user's process, malformed messages.

Every cell makes a variable with a new name, and every cell's value is checked. After every interrupt and death, nothing may be lost except
what was announced. The memory of the kernel process itself must stay flat; its open files and child processes are counted. The process that
runs user code keeps the compiled code of every cell, because later cells may call it; the row also shows how much memory that takes per
cell. Stock evcxr_jupyter runs the cells too, but it does not survive the rest: an interrupt loses its variables, and it does not answer
after malformed messages. kernel/tests/test_soak.py is the short form.
"""

import queue
import random
import tempfile
import time
from contextlib import ExitStack

import zmq
from harness import Row
from harness.process import Failed
from suites.kernel import STOCK, Kernel, our_argv, plain_cell, stock_argv

# Numbers for the full form, as `python -m harness` runs it, and for --quick.
CELLS, INTERRUPTS, KILLS, MALFORMED = (1000, 60), (200, 6), (50, 4), (10_000, 500)
# Memory is compared with its amount after this many cells. By then, buffers have reached their full size: the kernel can go back over its
# last 100 cells.
WARM = 150


def cell(n):
    """A new cell with a new variable."""
    return f"let squares{n}: u64 = (0..{n}u64).map(|i| i * i).sum(); squares{n}", str(sum(i * i for i in range(n)))


class State:
    """The memory, files and processes that a kernel holds now."""

    def __init__(self, kernel):
        self.memory = kernel.process.memory_info().rss
        self.files = kernel.process.num_fds()
        children = kernel.process.children(recursive=True)
        self.children = len(children)
        self.user = sum(child.memory_info().rss for child in children)

    def since(self, before):
        return {
            "memory": f"{self.memory / before.memory - 1:+.1%}",
            "kernel bytes": self.memory,
            "files": f"{self.files - before.files:+d}",
            "processes": f"{self.children - before.children:+d}",
        }

    def grown(self, before):
        """The reason if something is not allowed, or nothing."""
        if abs(self.memory / before.memory - 1) > 0.1:
            return f"the kernel's memory went from {before.memory >> 20} to {self.memory >> 20} MiB"
        if self.files > before.files or self.children > before.children:
            return f"{self.files - before.files} files and {self.children - before.children} processes were left"
        return ""


def until_names_are_known(kernel, patience=300):
    """Waits for work in the background that happens once for each library: it takes memory and a separate process."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        reply = reply_to(kernel, kernel.client.complete("VarBuil", 7))
        if "VarBuilder" in reply["matches"] and len(kernel.process.children(recursive=True)) == 1:
            return
        time.sleep(0.5)
    raise Failed(f"the library's names were not learned within {patience} s")


def rows(settings, deadline):
    turn = 1 if settings.quick else 0
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wavemesh-bench-soak-"))
        try:
            argv = our_argv()
        except Failed as reason:
            yield Row("everything", "", not_measured=str(reason))
            return

        def start(command=argv):
            # Without this variable the stock kernel would replace your kernelspec by its own.
            return Kernel(command, settings.environment() | {"JUPYTER_PATH": folder}, folder)

        try:
            theirs, reason = stock_argv(False), ""
        except Failed as missing:
            theirs, reason = None, str(missing)
        yield cells_row(start, theirs, reason, CELLS[turn], 50 if not settings.quick else 10)
        for name, row in (("interrupts", interrupts), ("deaths of the user's process", kills), ("malformed messages", malformed)):
            size = {"interrupts": INTERRUPTS, "malformed messages": MALFORMED}.get(name, KILLS)[turn]
            with start() as kernel:
                yield checked(f"soak: {name}", f"{size}", lambda: row(kernel, size))


def checked(case, size, work):
    """The row of a part; a failure becomes the row's error."""
    try:
        return Row(case, size, **work())
    except queue.Empty:
        return Row(case, size, error="a message that must come did not come within 60 s")
    except (Failed, AssertionError) as wrong:
        return Row(case, size, error=f"{type(wrong).__name__}: {wrong}")


def cells_row(start, stock, reason, count, stock_count):
    case, size = "soak: cells in a row", f"{count} cells"

    def ours():
        with start() as kernel:
            seconds, before = [], None
            for n in range(10, 10 + count):
                seconds.append(kernel.run(*cell(n)))
                if len(seconds) == min(WARM, count // 2):
                    until_names_are_known(kernel)
                    before = State(kernel)
            after = State(kernel)
            tenth = count // 10
            facts = after.since(before) | {
                "last tenth / first tenth": round(sum(seconds[-tenth:]) / sum(seconds[:tenth]), 2),
                "user process, bytes a cell": (after.user - before.user) // (count - min(WARM, count // 2)),
            }
            return {"ours": seconds, "our_facts": facts, "our_memory": kernel.memory(), "error": after.grown(before)}

    row = checked(case, size, ours)
    row.peer, row.not_measured = STOCK, reason
    if stock:
        with start(stock) as kernel:
            for n in range(10, 10 + stock_count):
                try:
                    row.theirs.append(kernel.run(*cell(n)))
                except Failed as stopped:
                    row.their_facts["stopped"] = f"at cell {n - 10}: {stopped}"
                    break
            row.their_memory = kernel.memory()
    row.their_facts["cells"] = len(row.theirs)
    row.our_facts["cells"] = len(row.ours)
    return row


def until_it_prints(kernel, code):
    """Sends a cell and waits for its first output."""
    msg_id = kernel.client.execute(code)
    while True:
        message = kernel.client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
            return msg_id


def reply_to(kernel, msg_id):
    while True:
        reply = kernel.client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == msg_id:
            return reply["content"]


def interrupts(kernel, count):
    """Nine of ten cells notice the stop by themselves and keep all variables; the tenth is stopped by force and reports what was lost."""
    chance = random.Random(3)
    kernel.run(":grace 0.3")
    kernel.run("fn double(x: i64) -> i64 { x * 2 }")
    kernel.run("let mut kept = 0i64;")
    seconds, kept, before = [], 0, None
    for i in range(count):
        by_force = i % 10 == 9
        check = "" if by_force else "wavemesh::task::check_interrupt()?;"
        msg_id = until_it_prints(kernel, f'println!("begun"); loop {{ {check} std::thread::sleep(std::time::Duration::from_millis(1)); }}')
        time.sleep(chance.random() * 0.1)
        begun = time.perf_counter()
        kernel.manager.interrupt_kernel()
        reply = reply_to(kernel, msg_id)
        seconds.append(time.perf_counter() - begun)
        assert reply["status"] == "error" and reply["ename"] == "Interrupted", reply
        if by_force:
            assert "kept" in reply["evalue"], f"the loss was not announced: {reply['evalue']}"
            kernel.run("let mut kept = 0i64;")
            kept = 0
        kernel.run(f"kept += double({i}); kept", str(kept + 2 * i))
        kept += 2 * i
        if i == min(20, count // 2):
            before = State(kernel)
    after = State(kernel)
    return {"ours": seconds, "our_facts": after.since(before), "error": after.grown(before)}


def kills(kernel, count):
    """The process that runs user code kills itself, in each possible way in turn."""
    deaths = (
        "unsafe extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }\nunsafe { kill(std::process::id() as i32, 9) };",
        "std::process::abort()",
        "std::process::exit(3)",
        "unsafe { std::ptr::read_volatile(std::hint::black_box(16) as *const u8) }",
        "fn down(n: u64) -> u64 { if n == 0 { 0 } else { 1 + down(std::hint::black_box(n + 1)) } }\ndown(1)",
    )
    kernel.run("fn double(x: i64) -> i64 { x * 2 }")
    seconds, before = [], None
    for i in range(count):
        kernel.run(f"let lost_{i} = {i};")
        begun = time.perf_counter()
        reply = reply_to(kernel, kernel.client.execute(deaths[i % len(deaths)]))
        assert reply["status"] == "error" and f"lost_{i}" in reply["evalue"], reply
        kernel.run(f"double({i})", str(2 * i))
        seconds.append(time.perf_counter() - begun)
        if i == min(10, count // 2):
            before = State(kernel)
    after = State(kernel)
    return {"ours": seconds, "our_facts": after.since(before), "error": after.grown(before)}


def malformed(kernel, count):
    """Sends noise, and cut, forged and changed messages, on every channel that takes messages. After every tenth of them, a cell must still
    be right."""
    chance = random.Random(1)
    info, session = kernel.client.get_connection_info(), kernel.client.session
    forger = type(session)(key=b"guessed")
    context = zmq.Context.instance()
    sockets = []
    for channel in ("shell", "control", "stdin"):
        socket = context.socket(zmq.DEALER)
        socket.linger = 2000
        socket.connect(f"tcp://{info['ip']}:{info[f'{channel}_port']}")
        sockets.append(socket)
    noise = lambda: chance.randbytes(chance.randrange(200))  # noqa: E731
    kernel.run(*plain_cell(3))
    seconds, before = [], State(kernel)
    for number in range(count):
        valid = forger.serialize(forger.msg("execute_request", {"code": "panic!()"}))
        messages = (
            lambda: [noise() for _ in range(chance.randrange(1, 9))],
            lambda: [b"<IDS|MSG>"] + [noise() for _ in range(chance.randrange(7))],
            lambda: valid[: chance.randrange(1, len(valid))],
            lambda: valid[:-1] + [noise()],
        )
        chance.choice(sockets).send_multipart(chance.choice(messages)())
        if (number + 1) % (count // 10) == 0:
            seconds.append(kernel.run(*plain_cell(number)))
    after = State(kernel)
    for socket in sockets:
        socket.close()
    return {"ours": seconds, "our_facts": after.since(before), "error": after.grown(before)}
