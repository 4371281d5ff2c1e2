"""The Jupyter kernel beside stock evcxr_jupyter, and beside rustc compiling the same cell alone, which is the limit.

Both kernels are driven through jupyter_client as JupyterLab does it, cell by cell in turn; a cell's time runs from sending it to the
last of its output. The stock kernel is compiled from crates.io into the bench's own folder, once. It compiles the library into a new
folder in each run: that folder is empty for the first row of a library cell, and later rows find the library there.
"""

import hashlib
import json
import os
import queue
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil

from harness import Row, WrongAnswer
from harness.install import HOME
from harness.machine import ROOT
from harness.process import Failed

OURS = "ours"
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
        self.printed, values, errors = "", [], []

        def output(message):
            content = message["content"]
            if message["msg_type"] == "execute_result":
                values.append(content["data"].get("text/plain", "").strip())
            if message["msg_type"] == "stream":
                self.printed += content["text"]
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
        """Resident bytes (PSS) of the kernel and its processes; in the sum each shared page counts once."""
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                pass  # the process has ended
        return total


def our_argv():
    program = DATA / "bin" / "wavemesh-kernel"
    if not program.exists():
        raise Failed(f"{program} is not there: run `bash kernel/setup.sh` first")
    return [str(program), "run", "--connection-file", "{connection_file}"]


def stock_argv(may_build):
    """The stock kernel's command; compiles it if it is missing and there is time."""
    root = HOME / "evcxr"
    if may_build and not (root / "seconds").exists():
        cargo_install(our_install(), "--path", str(ROOT / "kernel"))
        cargo_install(root, "evcxr_jupyter", "--version", "0.22.0")
    program = root / "bin" / "evcxr_jupyter"
    if not program.exists():
        raise Failed("it is compiled by the first run without --quick (about ten minutes)")
    return [str(program), "--control_file", "{connection_file}"]


def our_install():
    """The folder where ours is compiled like the stock kernel, only to measure the time; its dependencies decide how long this takes."""
    lock = hashlib.sha256((ROOT / "kernel" / "Cargo.lock").read_bytes()).hexdigest()[:12]
    return HOME / f"wavemesh-kernel-{lock}"


def cargo_install(root, *crate):
    """Runs `cargo install` of a crate into `root`, once, with nothing compiled before. Writes its seconds to a file."""
    stamp = root / "seconds"
    if stamp.exists():
        return
    print(f"   cargo install {' '.join(crate)}, once: five to ten minutes …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="wavemesh-bench-install-") as target:
        environment = os.environ | {"CARGO_TARGET_DIR": target}
        command = ["cargo", "install", *crate, "--locked", "--quiet", "--root", str(root)]
        start = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.monotonic() - start
    if done.returncode:
        raise Failed(f"cargo install {crate[0]}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    stamp.write_text(f"{seconds:.0f}")


class BareRustc:
    """The same cells as complete crates, compiled by one rustc call each: no kernel can be faster."""

    def __init__(self, folder):
        self.folder, self.library, self.rustc = Path(folder), [], "rustc"
        bundles = sorted(DATA.glob("*/bundle.json"), key=lambda path: path.stat().st_mtime)
        if bundles:
            lib = bundles[-1].parent / "lib"
            bundle = json.loads(bundles[-1].read_text())
            # The compiler itself, as the kernel calls it, without rustup's wrapper.
            shared, self.rustc = lib / bundle["file"], bundle["toolchain"]["rustc"]
            self.library = ["-L", f"dependency={lib}", "--extern", f"wavemesh={shared}", "-C", "prefer-dynamic"]

    def parts(self, n, cell):
        """Times of rustc without its linker, and of the linker, as rustc's own `-Ztime-passes` reports them."""
        said = self.compile(n, cell, True, ["-Z", "time-passes"]).stderr
        seconds = {part: float(time) for time, part in re.findall(r"time: +([0-9.]+);.*\t(link|total)$", said, re.MULTILINE)}
        return {"rustc": seconds["total"] - seconds["link"], "link": seconds["link"]}

    def run(self, n, cell, uses_library):
        start = time.perf_counter()
        self.compile(n, cell, uses_library)
        return time.perf_counter() - start

    def compile(self, n, cell, uses_library, options=()):
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
        command = [self.rustc, "--edition=2024", "--crate-type", "cdylib", *(self.library if uses_library else []), *options, str(source)]
        environment = os.environ | {"RUSTC_BOOTSTRAP": "1"}
        done = subprocess.run([*command, "-o", f"{self.folder}/cell{n}.so"], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"rustc: {(done.stderr.strip().splitlines() or ['no message'])[0]}")
        return done


def rows(settings, deadline):
    quick = settings.quick
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wavemesh-bench-kernel-"))
        argv, missing = {}, {}
        for name, find in ((OURS, our_argv), (STOCK, lambda: stock_argv(not quick))):
            try:
                argv[name] = find()
            except Failed as reason:
                missing[name] = str(reason)
        stock_folder = Path(folder) / "stock"
        # With this variable, the stock kernel would find what others have compiled.
        outside = {name: value for name, value in settings.environment().items() if name != "CARGO_TARGET_DIR"}

        # Without this variable, the stock kernel would replace your kernelspec by its own.
        outside["JUPYTER_PATH"] = folder

        def start(name, stock=stock_folder):
            return Kernel(argv[name], outside | ({"EVCXR_TMPDIR": str(stock)} if name == STOCK else {}), folder)

        yield from install_rows()
        if OURS in missing:
            yield Row("everything else", "", STOCK, not_measured=missing[OURS])
            return
        yield from ready_rows(argv, missing, start, 1 if quick else 5)
        with_library = [name for name in argv if name == OURS or not quick]
        if quick and STOCK in argv:
            missing[STOCK] = "it compiles the library on first use, which takes minutes; measured without --quick"
        yield from first_rows(with_library, missing, start, 1 if quick else 3)
        bare, times = BareRustc(folder), 5 if quick else 30
        with ExitStack() as running:
            kernels = {name: running.enter_context(start(name)) for name in argv}
            yield from cell_rows("plain", plain_cell, kernels, missing, bare, times, deadline)
            kernels = {name: kernel for name, kernel in kernels.items() if name in with_library}
            if STOCK in kernels:
                use_library(kernels[STOCK])
            yield from cell_rows("library", library_cell, kernels, missing, bare, times, deadline)
            yield from parts_row(kernels[OURS], bare, times)
        yield from growth_rows(start, bare, times, deadline)
        yield from pair_rows(with_library, missing, start, stock_folder, 3 if quick else 10)


def install_rows():
    """How long each kernel took to compile from nothing, downloads included; measured in the run that compiles the stock kernel."""
    ours, theirs = ([float(stamp.read_text())] if stamp.exists() else [] for stamp in (our_install() / "seconds", HOME / "evcxr" / "seconds"))
    if ours or theirs:
        yield Row("install from source", "cargo install", STOCK, ours, theirs)


def ready_rows(argv, missing, start, times):
    """The time from the start of the process to the answer to kernel_info, and then to the first value of a plain cell."""
    ready = {name: [] for name in argv}
    first = {name: [] for name in argv}
    memory = {}
    for _ in range(times):
        for name in argv:
            with start(name) as kernel:
                ready[name].append(kernel.ready_seconds)
                first[name].append(kernel.ready_seconds + kernel.run(*plain_cell(2)))
                memory[name] = kernel.memory()
    for case, samples in (("start to ready", ready), ("start to first value of a plain cell", first)):
        yield Row(
            case,
            f"{times} starts",
            STOCK,
            ours=samples[OURS],
            theirs=samples.get(STOCK, []),
            our_memory=memory[OURS],
            their_memory=memory.get(STOCK),
            not_measured="" if STOCK in argv else missing[STOCK],
            headline=case == "start to ready",
        )


def use_library(kernel):
    """The commands that a stock kernel needs before a cell can use the library."""
    return kernel.run(f':dep wavemesh = {{ path = "{ROOT}" }}', timeout=900) + kernel.run("use wavemesh::prelude::*;", timeout=900)


def first_rows(names, missing, start, times):
    """The first cell that uses candle and WaveMesh. One row sends it at once and times it from the start of the process; the other row
    sends it ten seconds later."""
    for case, pause in (("start to first library value, sent at once", 0), ("first library cell, sent 10 s after start", 10)):
        samples, error = {name: [] for name in names}, ""
        for turn in range(times):
            for name in names:
                # The stock kernel compiles the library at its first start, which takes minutes; once is enough.
                if name == STOCK and turn > 0:
                    continue
                try:
                    with start(name) as kernel:
                        time.sleep(pause)
                        prepared = use_library(kernel) if name == STOCK else 0
                        seconds = prepared + kernel.run(*library_cell(turn + 1), timeout=900)
                        samples[name].append(seconds if pause else kernel.ready_seconds + seconds)
                except (Failed, WrongAnswer) as reason:
                    error = f"{name}: {reason}"
        facts = {"its build folder": "was there" if pause else "was empty"} if samples.get(STOCK) else {}
        size = f"{times} starts"
        yield Row(case, size, STOCK, samples[OURS], samples.get(STOCK, []), their_facts=facts, not_measured=missing.get(STOCK, ""), error=error)


def cell_rows(kind, cell, kernels, missing, bare, times, deadline):
    """New cells in turn: ours, the stock kernel's, rustc alone."""
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
    # The first of each kind warms the file cache.
    samples, limit = {name: each[1:] for name, each in samples.items()}, limit[1:]
    share = statistics.median(limit) / statistics.median(samples[OURS]) if limit and samples[OURS] else None
    case, size = f"warm {kind} cell", f"{times} cells"
    yield Row(
        case,
        size,
        STOCK,
        ours=samples[OURS],
        theirs=samples.get(STOCK, []),
        share=share,
        our_memory=kernels[OURS].memory(),
        their_memory=kernels[STOCK].memory() if STOCK in kernels else None,
        not_measured="" if STOCK in kernels else missing.get(STOCK, ""),
        error=error,
        headline=case == "warm library cell",
    )
    yield Row(case, size, RUSTC, ours=samples[OURS], theirs=limit, share=share, not_measured=no_limit)


def growth_rows(start, bare, times, deadline):
    """Ours alone, after many items of earlier cells: a plain cell beside rustc, and a cell that defines a function."""
    for count in (0, 100, 1000):
        if time.monotonic() > deadline:
            return
        plain, defining, limit, error = [], [], [], ""
        with start(OURS) as kernel:
            try:
                for first in range(0, count, 100):
                    kernel.run("\n".join(f"fn item{n}(x: u64) -> u64 {{ x.rotate_left({n % 64}) ^ {n} }}" for n in range(first, first + 100)))
                for n in range(9, 10 + times):
                    plain.append(kernel.run(*plain_cell(n)))
                    defining.append(kernel.run(f"fn changing() -> u64 {{ {n} }}"))
                    limit.append(bare.run(n, plain_cell, False))
            except (Failed, WrongAnswer) as reason:
                error = str(reason)
        # The first of each kind warms the file cache.
        plain, defining, limit = plain[1:], defining[1:], limit[1:]
        share = statistics.median(limit) / statistics.median(plain) if plain and limit else None
        yield Row("warm plain cell after earlier items", f"{count} items", RUSTC, plain, limit, share=share, error=error)
        yield Row("cell that defines a function after earlier items", f"{count} items", RUSTC, defining, limit, error=error)


def parts_row(ours, bare, times):
    """The parts of a warm library cell's time, as the kernel's `%time` reports them. The kernel saves the call of cargo."""
    parts, total = {}, []
    for n in range(100, 100 + times):
        code, expected = library_cell(n)
        total.append(ours.run(f"%time\n{code}", expected))
        for part, seconds in re.findall(r"(analysis|rustc|link|load|run) ([0-9.]+) s", ours.printed):
            parts.setdefault(part, []).append(float(seconds))
    facts = {part: f"{statistics.median(seconds) * 1e3:.0f} ms" for part, seconds in parts.items()} | {"cargo": "not called"}
    wire = statistics.median(total) - sum(statistics.median(seconds) for seconds in parts.values())
    facts["messages"] = f"{wire * 1e3:.0f} ms"
    limit = bare.parts(100, library_cell)
    yield Row("where a warm library cell's time goes", f"{times} cells", RUSTC, total, [sum(limit.values())], our_facts=facts,
              their_facts={part: f"{seconds * 1e3:.0f} ms" for part, seconds in limit.items()})


def pair_rows(names, missing, start, stock_folder, times):
    """Two kernels at once: each runs warm library cells while the other does the same. Stock kernels cannot share a folder, so one gets a
    copy."""
    samples, memory, error = {name: [] for name in names}, {}, ""
    if STOCK in names:
        shutil.copytree(stock_folder, f"{stock_folder}-2", symlinks=True)
    for name in names:
        with start(name) as one, start(name, f"{stock_folder}-2") as other:
            try:
                for kernel in (one, other):
                    if name == STOCK:
                        use_library(kernel)
                    kernel.run(*library_cell(1), timeout=900)
                with ThreadPoolExecutor(2) as pool:
                    runs = pool.map(lambda kernel: [kernel.run(*library_cell(n)) for n in range(200, 200 + times)], (one, other))
                    samples[name] = [seconds for run in runs for seconds in run]
                memory[name] = one.memory() + other.memory()
            except (Failed, WrongAnswer) as reason:
                error += f"{name}: {reason}"
    yield Row("warm library cell in two kernels at once", f"2 × {times} cells", STOCK, samples[OURS], samples.get(STOCK, []), memory.get(OURS), memory.get(STOCK),
              not_measured=missing.get(STOCK, ""), error=error)
