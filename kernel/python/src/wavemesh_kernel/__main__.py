"""The command `wavemesh-kernel` of the pip package. It runs the kernel's own program and leads it to its compiler.

All arguments are passed on to that program. `uninstall` also removes what this package made at run time.
"""

import os
import subprocess
import sys

from . import bundle
from .errors import RustError, RustKernelMissing
from .locate import NAME, find_kernel_specs, prepare


def main():
    """Runs the command; returns the exit status if the kernel's program does not take over."""
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["uninstall"]:
            return uninstall(arguments)
        if arguments[:1] not in ([], ["--help"], ["-h"], ["--version"], ["-V"]):
            prepare(say)
        spec = find_kernel_specs().get_kernel_spec(NAME)
    except RustError as error:
        print(f"wavemesh-kernel: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    os.execve(spec.argv[0], [spec.argv[0], *arguments], {**os.environ, **(spec.env or {})})
    return None  # never reached


def uninstall(arguments):
    """Removes the kernel from Jupyter, and everything that was made at run time."""
    try:
        program = find_kernel_specs().get_kernel_spec(NAME).argv[0]
        status = subprocess.run([program, *arguments], check=False).returncode
    except RustKernelMissing:
        status = 0  # Jupyter does not know the kernel; the rest can still be removed
    bundle.remove(say)  # even if the kernelspec belongs to another program and stays
    say(f"What is left: {sys.executable} -m pip uninstall wavemesh-kernel")
    return status


def say(line):
    """Progress goes to standard error; standard output is the kernel's."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
