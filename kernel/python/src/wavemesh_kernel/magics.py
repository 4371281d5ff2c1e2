"""The magics, and the mode in which every cell is Rust."""

import atexit
import os
import subprocess
import sys

from . import assist, values
from .cells import first_line, is_python, is_rust
from .errors import RustUsageError
from .locate import prepare
from .relay import RustKernel
from .screen import Screen

WELCOME = "Cells are Rust from here on. `%%python` on top of a cell makes that one Python; `%rust_mode off` ends this.\n"


class Extension:
    """What is loaded into one IPython shell: the kernel, its screen and whether cells are Rust."""

    def __init__(self, shell):
        self.shell = shell
        self.screen = Screen(shell)
        self.kernel = RustKernel(self.screen)
        self.screen.on_comm = self.kernel.tell
        self.rust_mode = False

    # Magics

    def rust(self, line, cell=None):
        """`%%rust` runs the cell in the Rust kernel.

        `%rust restart` starts it afresh, `%rust interrupt` stops a cell that was left behind, `%rust doctor` looks for what is
        wrong.
        """
        if cell is not None:
            if line.strip():
                raise RustUsageError(f"%%rust takes nothing on its line, and there is {line.strip()!r}")
            return self.run(cell)
        actions = {"restart": self._restart, "interrupt": self._interrupt, "doctor": self._doctor}
        action = actions.get(line.strip())
        if action is None:
            raise RustUsageError(f"%rust {line.strip()}: use one of {', '.join(actions)}; %%rust runs a cell")
        return action()

    def rust_mode_magic(self, line):
        """`%rust_mode on` makes every cell Rust unless it starts with `%`, `!` or `%%python`; `%rust_mode off` ends that."""
        wish = line.strip() or ("off" if self.rust_mode else "on")
        if wish not in ("on", "off"):
            raise RustUsageError(f"%rust_mode {wish}: use on or off")
        self.set_mode(wish == "on")
        print(WELCOME if wish == "on" else "Cells are Python again; %%rust makes one Rust.\n", end="")

    def rust_push(self, line):
        """`%rust_push a b` gives Python variables to Rust under the same names."""
        values.push(self, line.split())

    def rust_pull(self, line):
        """`%rust_pull a b` gives Rust variables to Python under the same names."""
        values.pull(self, line.split())

    def run(self, code, store_history=True):
        """Runs Rust code; returns its value for IPython to show as the cell's result."""
        prepare(self.screen.say)
        bundle = self.kernel.execute(code, self.screen.can_ask(), store_history, self.shell.displayhook.prompt_count)
        return None if bundle is None else RustValue(bundle)

    def _restart(self):
        prepare(self.screen.say)
        self.kernel.restart()
        print("The Rust kernel is fresh; all its variables are gone.")

    def _interrupt(self):
        self.kernel.interrupt()

    def _doctor(self):
        command = [sys.executable, "-m", "wavemesh_kernel", "doctor"]
        # Jupyter's programs lie beside this Python, which need not be on the PATH of a kernel.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": {**os.environ, "PATH": path}}
        with subprocess.Popen(command, **options) as process:
            for text in process.stdout:
                print(text, end="", flush=True)

    # The mode

    def set_mode(self, on):
        """Turns the mode on or off. Turning it on starts the kernel in the background."""
        transformers = self.shell.input_transformers_cleanup
        if self.transform in transformers:
            transformers.remove(self.transform)
        if on:
            prepare(self.screen.say)
            self.kernel.start()
            transformers.insert(0, self.transform)
        self.rust_mode = on

    def transform(self, lines):
        """Turns a Rust cell into one call of `%%rust`, before IPython looks at the cell."""
        if is_rust(lines):
            return [f"get_ipython().run_cell_magic('rust', '', {''.join(lines)!r})\n"]
        if is_python(lines):
            first = first_line(lines)
            return [*lines[:first], "# %%python\n", *lines[first + 1 :]]
        return lines


class RustValue:
    """The value that ended a Rust cell, as IPython's `Out[n]`."""

    def __init__(self, bundle):
        self._bundle = bundle

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self._bundle.get("data", {}), self._bundle.get("metadata", {})

    def __repr__(self):
        return self._bundle.get("data", {}).get("text/plain", "")


def load(shell):
    """Turns the mode on, which starts the kernel in the background, and registers the magics. If that fails, nothing has changed."""
    if getattr(shell, "wavemesh", None) is not None:
        return
    extension = Extension(shell)
    extension.set_mode(True)
    shell.register_magic_function(extension.rust, "line_cell", "rust")
    shell.register_magic_function(extension.rust_mode_magic, "line", "rust_mode")
    shell.register_magic_function(extension.rust_push, "line", "rust_push")
    shell.register_magic_function(extension.rust_pull, "line", "rust_pull")
    assist.install(extension)
    shell.wavemesh = extension
    atexit.register(extension.kernel.shutdown)
    print(WELCOME, end="")


def unload(shell):
    """Undoes everything that `load` did."""
    extension = getattr(shell, "wavemesh", None)
    if extension is None:
        return
    shell.wavemesh = None
    extension.set_mode(False)
    assist.remove(extension)
    for kind, name in (("line", "rust"), ("cell", "rust"), ("line", "rust_mode"), ("line", "rust_push"), ("line", "rust_pull")):
        shell.magics_manager.magics[kind].pop(name, None)
    atexit.unregister(extension.kernel.shutdown)
    extension.kernel.shutdown()
