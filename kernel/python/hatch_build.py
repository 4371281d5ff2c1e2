"""Puts the compiled parts into the wheel: the kernel's program, the compiled library, its sources, and the kernelspec.

`kernel/package.sh` makes them and names their folder in WAVEMESH_BUNDLE. Without that variable, as when pip builds from the sdist,
they are made here, from the Rust sources in the sdist's folder `rust/`. If the variable is empty, they are left out, and the kernel
that `kernel/setup.sh` registered with Jupyter is used.
"""

import os
import subprocess
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledParts(BuildHookInterface):
    """The build hook of the wheel."""

    def initialize(self, version, build_data):
        """Adds the folder of compiled parts. An editable installation uses the checkout's instead."""
        if version == "editable":
            return
        root = Path(self.root)
        folder = os.environ.get("WAVEMESH_BUNDLE")
        if folder == "":
            return
        if folder:
            build_data["tag"] = "py3-none-manylinux_2_35_x86_64"
        else:
            sources = root / "rust" if (root / "rust").exists() else root.parent.parent
            folder = str(Path(self.directory) / "bundle")
            subprocess.run(["bash", str(sources / "kernel/package.sh"), "--bundle", folder], check=True)
            build_data["tag"] = "py3-none-linux_x86_64"
        build_data["pure_python"] = False
        build_data["force_include"][folder] = "wavemesh_kernel/bundle"
        build_data["shared_data"][str(Path(folder) / "kernelspec")] = "share/jupyter/kernels/wavemesh"
