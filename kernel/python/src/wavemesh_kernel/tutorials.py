"""The tutorials' meshes, for a notebook that was opened without the files beside it, as Colab does."""

import importlib.util
import shutil
from pathlib import Path

from .bundle import FOLDER

MESHES = FOLDER / "meshes"


def in_colab():
    """Whether this is Google Colab, or something that has its Python package."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:
        return False


def bring_meshes(say):
    """Puts `meshes` beside a notebook in Colab, where the tutorials look for it, unless something is there already."""
    there = Path("meshes")
    if MESHES.exists() and in_colab() and not there.exists():
        partial = Path(".meshes.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(MESHES, partial)
        partial.rename(there)
        say("The tutorials' meshes are in ./meshes.")
