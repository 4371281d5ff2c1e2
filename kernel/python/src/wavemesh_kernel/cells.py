"""Which cells are Rust."""

from typing import NamedTuple

# These are from the kernel's table of commands (a test there compares). They mean the same in Rust, so a cell may start with one.
TIMED = ("%time", "%timeit", "%%time", "%%timeit")


class RustPart(NamedTuple):
    """The Rust code of a cell, and the number of characters before it."""

    code: str
    offset: int


def first_line(lines):
    """The index of the first line that is not blank, or None."""
    return next((index for index, line in enumerate(lines) if line.strip()), None)


def is_rust(lines):
    """Whether a cell is Rust when the mode is on: it is, unless it is empty or starts with `%` or `!`.

    Code on the line of `%time` or below it is timed in the language of the mode.
    """
    first = first_line(lines)
    if first is None:
        return False
    line = lines[first].strip()
    return line[0] not in "%!" or line.split()[0] in TIMED


def is_python(lines):
    """Whether a cell starts with `%%python`."""
    first = first_line(lines)
    return first is not None and lines[first].strip() == "%%python"


def rust_part(code, rust_mode):
    """The part of a cell that the Rust kernel would get, or None."""
    lines = code.splitlines(keepends=True)
    first = first_line(lines)
    if first is not None and lines[first].strip() == "%%rust":
        offset = sum(len(line) for line in lines[: first + 1])
        return RustPart(code[offset:], offset)
    return RustPart(code, 0) if rust_mode and is_rust(lines) else None
