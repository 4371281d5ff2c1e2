"""Puts the compiled library into the wheel. `kernel/package.sh --cuda` makes it and names its folder in WAVEMESH_BUNDLE."""

import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledLibrary(BuildHookInterface):
    """The build hook of the wheel."""

    def initialize(self, version, build_data):
        """Adds the folder of the compiled library."""
        folder = os.environ.get("WAVEMESH_BUNDLE")
        if not folder:
            raise RuntimeError("this wheel is made by `bash kernel/package.sh --cuda`, which compiles the library first")
        build_data["tag"] = "py3-none-manylinux_2_35_x86_64"
        build_data["pure_python"] = False
        build_data["force_include"][folder] = "wavemesh_kernel_cuda/bundle"
