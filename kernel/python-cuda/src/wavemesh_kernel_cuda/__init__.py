"""WaveMesh's library for cells, compiled for NVIDIA GPUs. `wavemesh_kernel` finds it and puts it in place."""

from pathlib import Path

__version__ = "0.1.0"

FOLDER = Path(__file__).parent / "bundle"
