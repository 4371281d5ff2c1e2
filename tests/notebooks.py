"""Executes notebooks in the kernel `wavemesh` and checks what a reader would see.

A notebook passes when every cell ran without an error, every cell whose saved copy shows a picture shows one again,
and its saved copy is under 1 MB. The executed notebooks are kept, as .ipynb, in the folder given first. With `--save` before
it, a notebook that passes gets the outputs of this run.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

MAX_BYTES = 1_000_000
GRAPHICAL = {"image/png", "image/svg+xml"}


def shows_picture(cell):
    return any(GRAPHICAL & set(output.get("data", {})) for output in cell.get("outputs", []))


def check(path, out_dir):
    """Returns the problems of one notebook, as sentences."""
    notebook = nbformat.read(path, as_version=4)
    saved = [shows_picture(cell) for cell in notebook.cells]
    problems = []
    if path.stat().st_size >= MAX_BYTES:
        problems.append(f"is {path.stat().st_size:,} bytes; saved outputs must stay under {MAX_BYTES:,}")
    client = NotebookClient(notebook, kernel_name="wavemesh", timeout=1800, resources={"metadata": {"path": path.parent}})
    try:
        client.execute()
    except CellExecutionError as error:
        problems.append(f"stopped at a cell: {error}")
    nbformat.write(notebook, out_dir / path.name)
    for number, (cell, picture) in enumerate(zip(notebook.cells, saved)):
        if picture and not shows_picture(cell):
            problems.append(f"cell {number} shows a picture in the saved copy and none now")
    return problems


def save(path, executed):
    """Gives the notebook the outputs of a run, without the times of its cells, so that two runs with the same outputs give the same
    file."""
    for cell in executed.cells:
        cell.metadata.pop("execution", None)
    begun = path.with_suffix(".ipynb.new")
    nbformat.write(executed, begun)
    if begun.stat().st_size >= MAX_BYTES:
        size = begun.stat().st_size
        begun.unlink()
        return [f"is not saved: with the outputs of this run it has {size:,} bytes, and {MAX_BYTES:,} are too many"]
    begun.replace(path)
    return []


def main(*arguments):
    keep = arguments[:1] == ("--save",)
    out_dir, *paths = arguments[keep:]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in map(Path, paths):
        start = time.monotonic()
        problems = check(path, out_dir)
        if keep and not problems:
            problems = save(path, nbformat.read(out_dir / path.name, as_version=4))
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok':6} {path.name}  {time.monotonic() - start:.1f} s", flush=True)
        for problem in problems:
            print(f"       {problem}", flush=True)
    print(f"notebooks: {len(paths) - failed} passed, {failed} failed")
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
