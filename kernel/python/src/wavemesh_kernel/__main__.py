"""The command `wavemesh-kernel` of the pip package: the kernel's own program, led to its compiler.

Everything is passed on to that program, but `uninstall`, which also removes what this package made at run time.
"""

import os
import sys

from . import bundle
from .errors import RustError
from .locate import find_kernel_specs, prepare


def main():
    """Runs the command; returns the exit status if the kernel's program does not take over."""
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["uninstall"]:
            return uninstall(arguments)
        if arguments[:1] not in ([], ["--help"], ["-h"], ["--version"], ["-V"]):
            prepare(say)
        spec = find_kernel_specs().get_kernel_spec("rust")
    except RustError as error:
        print(f"wavemesh-kernel: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    os.execve(spec.argv[0], [spec.argv[0], *arguments], {**os.environ, **(spec.env or {})})
    return None  # never reached


def uninstall(arguments):
    """Takes the kernel out of Jupyter and removes the compiled library and the fetched compiler."""
    import subprocess

    done = subprocess.run([str(bundle.KERNEL), *arguments], check=False)
    if done.returncode == 0 and bundle.is_packaged():
        bundle.remove(say)
        say(f"What is left: {sys.executable} -m pip uninstall wavemesh-kernel")
    return done.returncode


def say(line):
    """Progress goes to standard error; standard output is the kernel's."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
