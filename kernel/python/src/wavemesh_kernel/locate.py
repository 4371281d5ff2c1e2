"""Which Rust kernel to start: the one in this package, or the one that Jupyter knows as `wavemesh`."""

import os
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from . import bundle
from .errors import RustKernelMissing

NAME = "wavemesh"
OVERRIDE = "WAVEMESH_KERNEL"


def prepare(say):
    """Makes the packaged kernel ready to start. This is quick if it is ready already. `say` takes lines of progress."""
    if not os.environ.get(OVERRIDE) and bundle.is_packaged():
        bundle.prepare(say)


def find_kernel_specs():
    """A kernelspec manager whose `wavemesh` is the kernel to start.

    First the program that the variable WAVEMESH_KERNEL names, then the packaged one, then Jupyter's kernelspec `wavemesh`.
    """
    program = os.environ.get(OVERRIDE)
    if program:
        if not os.access(program, os.X_OK):
            raise RustKernelMissing(f"{OVERRIDE} names {program!r}, which is not a program")
        return OneKernel(Path(program), {})
    if bundle.is_packaged():
        return OneKernel(bundle.KERNEL, bundle.environment())
    specs = KernelSpecManager()
    try:
        specs.get_kernel_spec(NAME)
    except NoSuchKernel:
        raise RustKernelMissing(
            "there is no Rust kernel on this machine: `pip install` a wheel of wavemesh-kernel, which brings one, "
            "or run `bash kernel/setup.sh` in WaveMesh's sources"
        ) from None
    return specs


class OneKernel(KernelSpecManager):
    """A manager that knows one kernel, given by its program."""

    def __init__(self, program, env):
        super().__init__()
        self.spec = KernelSpec(
            argv=[str(program), "run", "--connection-file", "{connection_file}"],
            env=env,
            display_name="Rust (WaveMesh)",
            language="rust",
            interrupt_mode="message",
        )

    def get_kernel_spec(self, kernel_name):
        """The kernel, whatever its name."""
        return self.spec
