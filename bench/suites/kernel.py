"""The Jupyter kernel beside stock evcxr_jupyter, and beside rustc compiling the same cell alone, which is the limit.

Both kernels are driven through jupyter_client as JupyterLab does it, cell by cell in turn; a cell's time runs from sending it to the
last of its output. The stock kernel is compiled from crates.io into the bench's own folder, once.
"""

import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from harness import Row, WrongAnswer
from harness.install import HOME
from harness.machine import ROOT
from harness.process import Failed

STOCK = "evcxr_jupyter 0.22"
RUSTC = "bare rustc"
DATA = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "wavemesh"

# Every cell is new code (`n` differs), ends with a value, and has one right answer.
def plain_cell(n):
    return f"let squares{n}: u64 = (0..{n}u64).map(|i| i * i).sum(); squares{n}", str(sum(i * i for i in range(n)))


def library_cell(n):
    return f"let tensor{n} = Tensor::full({n}f32, (3, 4), &Device::Cpu)?; tensor{n}.sum_all()?.to_scalar::<f32>()?", f"{12.0 * n:.1f}"


class Kernel:
    """A running kernel and a client connected to it."""

    def __init__(self, argv, environment, folder):
        from jupyter_client import KernelManager
        from jupyter_client.kernelspec import KernelSpec

        self.manager = KernelManager()
        self.manager._kernel_spec = KernelSpec(argv=argv, display_name="bench", language="rust")
        self.log = open(Path(folder) / f"kernel-{time.monotonic_ns()}.log", "w+")
        start = time.perf_counter()
        self.manager.start_kernel(env=environment, cwd=folder, stdout=self.log, stderr=self.log)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.kernel_info()
        try:
            self.client.get_shell_msg(timeout=120)
        except queue.Empty:
            self.close()
            raise Failed(f"no kernel_info reply within 120 s: {self.last_words()}")
        self.ready_seconds = time.perf_counter() - start
        self.process = psutil.Process(self.manager.provisioner.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def last_words(self):
        self.log.seek(0)
        return (self.log.read().strip().splitlines() or ["it said nothing"])[-1]

    def run(self, code, expected=None, timeout=120):
        """Runs a cell; returns its seconds. A wrong value or an error is `WrongAnswer`."""
        values, errors = [], []

        def output(message):
            content = message["content"]
            if message["msg_type"] == "execute_result":
                values.append(content["data"].get("text/plain", "").strip())
            if message["msg_type"] == "error":
                errors.append(content.get("evalue") or content.get("ename"))

        start = time.perf_counter()
        try:
            reply = self.client.execute_interactive(code, timeout=timeout, output_hook=output, store_history=True)
        except TimeoutError:
            raise Failed(f"no end of the cell within {timeout} s: {code}")
        seconds = time.perf_counter() - start
        if errors or reply["content"]["status"] != "ok":
            raise Failed(f"{code!r} failed: {' '.join(errors).splitlines()[:1]}")
        if expected is not None and values != [expected]:
            raise WrongAnswer(f"{code!r} gave {values}, expected {expected!r}")
        return seconds

    def memory(self):
        """Resident bytes of the kernel and the processes it started, shared pages counted once each."""
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                pass  # ended meanwhile
        return total



def our_argv():
    program = DATA / "bin" / "wavemesh-kernel"
    if not program.exists():
        raise Failed(f"{program} is not there: run `bash kernel/setup.sh` first")
    return [str(program), "run", "--connection-file", "{connection_file}"]


def stock_argv(may_build):
    """The stock kernel's command; compiles it when it is not there and there is time for it."""
    program = HOME / "evcxr" / "bin" / "evcxr_jupyter"
    if not program.exists():
        if not may_build:
            raise Failed("it is compiled by the first run without --quick (about ten minutes)")
        print("   compiling evcxr_jupyter 0.22 from crates.io, once: about ten minutes …", file=sys.stderr, flush=True)
        environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
        command = ["cargo", "install", "evcxr_jupyter", "--version", "0.22.0", "--locked", "--quiet", "--root", str(HOME / "evcxr")]
        start = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"cargo install evcxr_jupyter: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        (HOME / "evcxr" / "seconds").write_text(f"{time.monotonic() - start:.0f}")
    return [str(program), "--control_file", "{connection_file}"]


class BareRustc:
    """The same cells as whole crates, compiled by one rustc call each: what no kernel can beat."""

    def __init__(self, folder):
        self.folder, self.library = Path(folder), []
        bundles = sorted(DATA.glob("*/bundle.json"), key=lambda path: path.stat().st_mtime)
        if bundles:
            lib = bundles[-1].parent / "lib"
            shared = lib / json.loads(bundles[-1].read_text())["file"]
            self.library = ["-L", f"dependency={lib}", "--extern", f"wavemesh={shared}", "-C", "prefer-dynamic"]

    def run(self, n, cell, uses_library):
        if uses_library and not self.library:
            raise Failed("there is no compiled library: run `bash kernel/setup.sh` first")
        code, _ = cell(n)
        body, value = code.rsplit("; ", 1)
        imports = "use wavemesh::prelude::*;" if uses_library else ""
        source = self.folder / f"cell{n}.rs"
        source.write_text(
            f"#![allow(unused)]\n{imports}\n#[unsafe(no_mangle)]\npub fn run_cell{n}() -> Result<(), Box<dyn std::error::Error>> "
            f'{{ {body}; println!("{{:?}}", {value}); Ok(()) }}\n'
        )
        command = ["rustc", "--edition=2024", "--crate-type", "cdylib", *(self.library if uses_library else []), str(source)]
        start = time.perf_counter()
        done = subprocess.run([*command, "-o", f"{self.folder}/cell{n}.so"], cwd=ROOT, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise Failed(f"rustc: {(done.stderr.strip().splitlines() or ['no message'])[0]}")
        return seconds


def rows(settings, deadline):
    quick = settings.quick
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wavemesh-bench-kernel-"))
        argv, missing = {}, {}
        for name, find in (("ours", our_argv), (STOCK, lambda: stock_argv(not quick))):
            try:
                argv[name] = find()
            except Failed as reason:
                missing[name] = str(reason)

        def start(name):
            return Kernel(argv[name], settings.environment(), folder)

        yield from install_rows(argv)
        if "ours" in missing:
            yield Row("everything else", "", STOCK, not_measured=missing["ours"])
            return
        yield from ready_rows(argv, missing, start, 1 if quick else 5)
        kernels = {name: stack.enter_context(start(name)) for name in argv}
        bare = BareRustc(folder)
        times = 5 if quick else 20
        yield from cell_rows("plain", plain_cell, kernels, missing, bare, times, deadline)
        if STOCK in kernels:
            if quick:
                missing[STOCK] = "it compiles the library on first use, which takes minutes; measured without --quick"
                del kernels[STOCK]
            else:
                yield from prepare_library(kernels, missing)
        yield from cell_rows("library", library_cell, kernels, missing, bare, times, deadline)
        kernels = {name: stack.enter_context(start(name)) for name in argv}
        yield from soak_rows(kernels, missing, 20 if quick else 300, deadline)


def install_rows(argv):
    """How long the stock kernel took to compile when it was installed here."""
    stamp = HOME / "evcxr" / "seconds"
    if stamp.exists():
        yield Row("install from source", "cargo install", STOCK, theirs=[float(stamp.read_text())])


def ready_rows(argv, missing, start, times):
    """From starting the process to the answer to kernel_info, and then to the first cell's value."""
    ready = {name: [] for name in argv}
    first = {name: [] for name in argv}
    memory = {}
    for turn in range(times):
        for name in argv:
            with start(name) as kernel:
                ready[name].append(kernel.ready_seconds)
                first[name].append(kernel.ready_seconds + kernel.run(*plain_cell(2)))
                memory[name] = kernel.memory()
    for case, samples in (("start to ready", ready), ("start to first value", first)):
        yield Row(
            case,
            f"{times} starts",
            STOCK,
            ours=samples["ours"],
            theirs=samples.get(STOCK, []),
            our_memory=memory["ours"],
            their_memory=memory.get(STOCK),
            not_measured=missing.get(STOCK, ""),
            headline=case == "start to ready",
        )


def prepare_library(kernels, missing):
    """What it takes until each kernel can use WaveMesh: nothing in ours, a compilation in the stock one."""
    code, expected = library_cell(1)
    stock = kernels[STOCK]
    try:
        ours = kernels["ours"].run(code, expected)
    except (Failed, WrongAnswer) as reason:
        yield Row("first cell that uses the library", "a Tensor", STOCK, error=f"ours: {reason}")
        return
    try:
        stock_seconds = stock.run(f':dep wavemesh = {{ path = "{ROOT}" }}', timeout=900) + stock.run("use wavemesh::prelude::*;", timeout=900)
        stock_seconds += stock.run(code, expected, timeout=900)
    except (Failed, WrongAnswer) as reason:
        missing[STOCK] = str(reason)
        kernels.pop(STOCK).close()
        yield Row("first cell that uses the library", "a Tensor", STOCK, ours=[ours], not_measured=str(reason))
        return
    yield Row("first cell that uses the library", "a Tensor", STOCK, ours=[ours], theirs=[stock_seconds], headline=True)


def cell_rows(kind, cell, kernels, missing, bare, times, deadline):
    """New cells in turn: ours, stock, rustc alone."""
    samples = {name: [] for name in kernels}
    limit, error, no_limit = [], "", ""
    for n in range(9, 10 + times):
        if error or time.monotonic() > deadline:
            break
        for name, kernel in kernels.items():
            try:
                samples[name].append(kernel.run(*cell(n)))
            except (Failed, WrongAnswer) as reason:
                error = f"{name}: {reason}"
        try:
            limit += [] if no_limit else [bare.run(n, cell, kind == "library")]
        except Failed as reason:
            no_limit = str(reason)
    # The first of its kind warms the file cache.
    samples, limit = {name: each[1:] for name, each in samples.items()}, limit[1:]
    share = statistics.median(limit) / statistics.median(samples["ours"]) if limit and samples["ours"] else None
    case, size = f"warm {kind} cell", f"{times} cells"
    yield Row(
        case,
        size,
        STOCK,
        ours=samples["ours"],
        theirs=samples.get(STOCK, []),
        share=share,
        not_measured=missing.get(STOCK, ""),
        error=error,
        headline=True,
    )
    yield Row(case, size, RUSTC, ours=samples["ours"], theirs=limit, share=share, not_measured=no_limit)


def soak_rows(kernels, missing, cells, deadline):
    """Many cells in a row: every value right, and how time and memory grow."""
    samples = {name: [] for name in kernels}
    before, facts, errors = {}, {name: {} for name in kernels}, []
    for n in range(10, 10 + cells):
        if time.monotonic() > deadline:
            break
        for name, kernel in kernels.items():
            if "stopped" in facts[name]:
                continue
            try:
                samples[name].append(kernel.run(*plain_cell(n)))
            except Failed as reason:
                facts[name]["stopped"] = f"at cell {n - 10}: {reason}"
                errors += [str(reason)] if name == "ours" else []
            except WrongAnswer as wrong:
                errors.append(f"wrong answer from {name}: {wrong}")
        if n == 15:
            before = {name: kernel.memory() for name, kernel in kernels.items()}
    tenth = max(1, cells // 10)
    for name, kernel in kernels.items():
        if len(samples[name]) >= 2 * tenth and "stopped" not in facts[name]:
            last, first = (statistics.median(part) for part in (samples[name][-tenth:], samples[name][:tenth]))
            facts[name]["last tenth / first tenth"] = round(last / first, 2)
            facts[name]["growth bytes"] = max(kernel.memory() - before.get(name, 0), 0)
    yield Row(
        "soak: cells in a row",
        f"{cells} cells",
        STOCK,
        ours=samples["ours"],
        theirs=samples.get(STOCK, []),
        our_memory=kernels["ours"].memory(),
        their_memory=kernels[STOCK].memory() if STOCK in kernels else None,
        our_facts=facts["ours"],
        their_facts=facts.get(STOCK, {}),
        not_measured=missing.get(STOCK, ""),
        error="; ".join(errors),
    )
