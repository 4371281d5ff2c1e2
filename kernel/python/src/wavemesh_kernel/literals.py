"""Python values as Rust literals."""

import math

RUST_KEYWORDS = frozenset(
    [
        "as",
        "async",
        "await",
        "break",
        "const",
        "continue",
        "crate",
        "dyn",
        "else",
        "enum",
        "extern",
        "false",
        "fn",
        "for",
        "if",
        "impl",
        "in",
        "let",
        "loop",
        "match",
        "mod",
        "move",
        "mut",
        "pub",
        "ref",
        "return",
        "self",
        "static",
        "struct",
        "super",
        "trait",
        "true",
        "type",
        "unsafe",
        "use",
        "where",
        "while",
        "abstract",
        "become",
        "box",
        "do",
        "final",
        "gen",
        "macro",
        "override",
        "priv",
        "try",
        "typeof",
        "unsized",
        "virtual",
        "yield",
    ]
)

INTEGERS = {f"{sign}{bits}": bits for sign in "iu" for bits in (8, 16, 32, 64, 128)} | {"isize": 64, "usize": 64}
# If nothing gives the type of a number, it gets the first of these that holds it.
WIDENING = ("i64", "u64", "i128", "u128")
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def rust_string(text):
    """A Rust string literal, on one line."""
    return '"' + "".join(escaped(letter) for letter in text) + '"'


def escaped(letter):
    """A character as a string literal has it; characters that do not print are written as their number."""
    if letter in ESCAPES:
        return ESCAPES[letter]
    return letter if letter.isprintable() else f"\\u{{{ord(letter):x}}}"


def rust_float(value, kind="f64"):
    """A Rust expression with exactly this value of the type `kind`."""
    if math.isfinite(value):
        return f"{value!r}_{kind}"
    return f"{kind}::NAN" if math.isnan(value) else f"{kind}::{'INFINITY' if value > 0 else 'NEG_INFINITY'}"


def bounds(kind):
    """The smallest and the largest value of an integer type."""
    bits = INTEGERS[kind]
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "i" else (0, 2**bits - 1)


def holds(kind, value):
    """Whether an integer type holds a value."""
    low, high = bounds(kind)
    return low <= value <= high


def integer_type(value):
    """The first of i64, u64, i128 and u128 that holds a value, or None."""
    return next((kind for kind in WIDENING if holds(kind, value)), None)
