"""Parameters of papermill in Rust notebooks: `papermill in.ipynb out.ipynb -p steps 21`.

papermill finds this module by the entry point `papermill.engine`. It puts a cell after the one tagged `parameters`, and asks a
translator for that cell. A parameter keeps the type of its default.
"""

import json
import os
import threading
import weakref

from .defaults import UNKNOWN, read_defaults
from .literals import RUST_KEYWORDS, bounds, holds, integer_type, rust_float, rust_string

# Gives `new` the type of a variable, because both arguments of this function have one type.
LIKE = "{keyword} {name} = {{ fn like<T>(_default: &T, new: T) -> T {{ new }} like(&{name}, {value}) }};"
GIVE_DEFAULT = "bind it in a cell with the tag `parameters`, whose `let` tells the type"

# papermill first calls `inspect` with the cell of the defaults, then `codify` in the same thread, and keeps the notebook in between.
_inspected = threading.local()


class RustTranslator:
    """What papermill asks for a language; see its `papermill.translators.Translator`."""

    @classmethod
    def inspect(cls, parameters_cell):
        """The parameters of a cell."""
        from papermill.models import Parameter

        defaults = read_defaults(parameters_cell["source"])
        _inspected.cell = weakref.ref(parameters_cell)
        return [Parameter(default.name, type_of(default), default.text, default.help) for default in defaults.values()]

    @classmethod
    def codify(cls, parameters, comment="Parameters"):
        """The cell that binds the parameters."""
        cell = getattr(_inspected, "cell", lambda: None)()
        _inspected.cell = lambda: None
        defaults = read_defaults(cell["source"]) if cell is not None else {}
        lines = [f"// {comment}"] + [binding(name, value, defaults.get(name)) for name, value in parameters.items()]
        return "\n".join(lines) + "\n"


def type_of(default):
    """A default's type for papermill's help, where "None" is an unknown one."""
    name = " ".join(default.annotation.split()) or default.form.name()
    return "None" if name == "_" else name


def binding(name, value, default):
    """The statement that binds a parameter."""
    if not name.isidentifier() or name in ("self", "super", "crate", "_"):
        raise wrong(name, "this cannot be the name of a variable in Rust")
    written = f"r#{name}" if name in RUST_KEYWORDS else name
    value = plain(name, value)
    if default is None:
        return f"let {written} = {untyped(name, value)};"
    expression = typed(name, value, default.form, default)
    if default.is_annotated():
        return f"{default.keyword} {written}: {default.annotation} = {expression};"
    if default.form.settled() and not leaves_open(value):
        return f"{default.keyword} {written} = {expression};"
    return LIKE.format(keyword=default.keyword, name=written, value=expression)


def leaves_open(value):
    """Whether a value has an empty part. Rust cannot infer the type of such a part."""
    if isinstance(value, dict):
        value = list(value.values())
    return value is None or isinstance(value, list) and (not value or any(map(leaves_open, value)))


def plain(name, value):
    """The value in YAML's types. Python programs may also pass tuples, paths and numpy's numbers."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {plain(name, key): plain(name, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(name, inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise wrong(name, f"a {type(value).__name__} cannot be given to Rust; give a text, a number, a boolean, or lists of these")


def untyped(name, value):
    """A value for a parameter without a default."""
    if value is None:
        raise wrong(name, f"nothing tells which type None stands for; {GIVE_DEFAULT}")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return integer(name, value, "" if holds("i32", value) else f"_{integer_type(value)}")
    if isinstance(value, float):
        return rust_float(value).removesuffix("_f64")
    if isinstance(value, str):
        return rust_string(value)
    kinds = {type(inner) for inner in (value.values() if isinstance(value, dict) else value)}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) != 1:
        raise wrong(
            name, f"{'its elements are of several types' if kinds else 'it is empty'}, so it has no type in Rust; {GIVE_DEFAULT}"
        )
    convert = float if kinds == {float} else lambda inner: inner
    if isinstance(value, dict):
        pairs = (f"({untyped(name, key)}, {untyped(name, convert(inner))})" for key, inner in value.items())
        return f"std::collections::BTreeMap::from([{', '.join(pairs)}])"
    return f"vec![{', '.join(untyped(name, convert(inner)) for inner in value)}]"


def typed(name, value, form, default):
    """A value in the form of the default."""
    if isinstance(value, str) and form.kind in READ_FROM_TEXT:
        value = READ_FROM_TEXT[form.kind](value)
    expression = WRITERS[form.kind](name, value, form, default)
    if expression is None:
        raise wrong(name, f"{described(value)} was given, and its default {default.text} is {WANTED[form.kind]}{hint(value, form)}")
    return expression


def elements(name, values, form, default, at=0):
    """Each value in the form of the elements."""
    element = form.parts[at] if form.parts else UNKNOWN
    return ", ".join(typed(name, value, element, default) for value in values)


def of_integer(name, value, form, default):
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # such as 1e3 on a command line
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if form.number is not None and not holds(form.number, value):
        low, high = bounds(form.number)
        raise wrong(name, f"{value} does not fit into {form.number}, the type of its default, which goes from {low} to {high}")
    return integer(name, value, default.suffix(form))


def integer(name, value, suffix):
    """A literal."""
    if integer_type(value) is None:
        raise wrong(name, f"{value} has more than 128 bits; give it as text")
    return f"{value}{suffix}"


def of_float(_name, value, form, default):
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    value = float(value)
    if form.number is None and value - value != 0:
        return f'"{value}".parse()?'  # infinite or NaN, of f32 or f64
    kind = form.number or "f64"
    return rust_float(value, kind).removesuffix(f"_{kind}") + (default.suffix(form) if value - value == 0 else "")


def of_bool(_name, value, _form, _default):
    return str(value).lower() if isinstance(value, bool) else None


def of_char(_name, value, _form, _default):
    return (
        f"'{rust_string(value)[1:-1] if value != chr(39) else chr(92) + value}'"
        if isinstance(value, str) and len(value) == 1
        else None
    )


def of_str(_name, value, _form, _default):
    return rust_string(value) if isinstance(value, str) else None


def of_string(_name, value, _form, _default):
    return f"String::from({rust_string(value)})" if isinstance(value, str) else None


def of_option(name, value, form, default):
    return "None" if value is None else f"Some({elements(name, [value], form, default)})"


def of_vec(name, value, form, default):
    return f"vec![{elements(name, value, form, default)}]" if isinstance(value, list) else None


def of_array(name, value, form, default):
    if not isinstance(value, list):
        return None
    if form.length is not None and len(value) != form.length:
        raise wrong(
            name,
            f"{len(value)} elements were given, and its default {default.text} is an array of {form.length}; "
            "a default `vec![…]` takes any number",
        )
    return f"[{elements(name, value, form, default)}]"


def of_slice(name, value, form, default):
    return f"&[{elements(name, value, form, default)}]" if isinstance(value, list) else None


def of_tuple(name, value, form, default):
    if not isinstance(value, list) or len(value) != len(form.parts):
        return None
    return f"({', '.join(typed(name, one, part, default) for one, part in zip(value, form.parts, strict=True))})"


def of_map(name, value, form, default):
    if not isinstance(value, dict):
        return None
    pairs = (f"({elements(name, [key], form, default)}, {elements(name, [one], form, default, 1)})" for key, one in value.items())
    return f"{form.path}::from([{', '.join(pairs)}])"


def of_unknown(name, value, form, default):
    """An expression that Rust converts to the type of the default, if it has such a conversion."""
    if value is None:
        return "None"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f'"{value}".parse()?'
    if isinstance(value, str):
        return f"{rust_string(value)}.into()"
    if isinstance(value, list):
        return f"[{elements(name, value, form, default)}].into()"
    pairs = (f"({elements(name, [key], form, default)}, {elements(name, [one], form, default)})" for key, one in value.items())
    return f"[{', '.join(pairs)}].into()"


WRITERS = {
    "integer": of_integer,
    "float": of_float,
    "bool": of_bool,
    "char": of_char,
    "str": of_str,
    "String": of_string,
    "option": of_option,
    "vec": of_vec,
    "array": of_array,
    "slice": of_slice,
    "tuple": of_tuple,
    "map": of_map,
    "unknown": of_unknown,
}
WANTED = {
    "integer": "a whole number",
    "float": "a number",
    "bool": "a boolean",
    "char": "one character",
    "str": "text",
    "String": "text",
    "vec": "a list",
    "array": "a list",
    "slice": "a list",
    "tuple": "a tuple, for which a list of as many values is given",
    "map": "a map",
}


def structured(text):
    """The list or map that a text holds as JSON. papermill's `-p` passes only text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, list | dict) else text


READ_FROM_TEXT = {
    "bool": lambda text: {"true": True, "false": False}.get(text, text),
    **dict.fromkeys(("vec", "array", "slice", "tuple", "map"), structured),
}


def described(value):
    """A value as messages show it."""
    if isinstance(value, str):
        return f"the text {value!r}"
    return f"the {'map' if isinstance(value, dict) else 'list'} {value}" if isinstance(value, dict | list) else str(value)


def hint(value, form):
    """What to do about it."""
    if value is None:
        return "; a default `Some(…)` takes None"
    if form.kind in ("str", "String") and not isinstance(value, list | dict):
        return "; `-r` in place of `-p` gives the text as it stands, as quotes do in YAML"
    if form.kind in ("integer", "float") and isinstance(value, str):
        return "; give it without quotes, and by `-p`, not by `-r`"
    if form.kind in ("vec", "array", "slice", "tuple", "map") and isinstance(value, str):
        return "; write it as JSON, or in a file for `-f`"
    return ""


def wrong(name, problem):
    """An error of papermill's own class, which its users catch."""
    from papermill.exceptions import PapermillException

    return PapermillException(f"the parameter `{name}`: {problem}")


def register():
    """Registers the translator with papermill for our kernel, and for all other Rust kernels unless another package serves them."""
    from papermill.exceptions import PapermillException
    from papermill.translators import papermill_translators

    papermill_translators.register("wavemesh", RustTranslator)
    try:
        papermill_translators.find_translator("", "rust")
    except PapermillException:
        papermill_translators.register("rust", RustTranslator)


def __getattr__(name):
    """The engine that the entry point names. papermill has an entry point for engines but none for translators, so asking for
    papermill's own engine registers the translator.

    papermill loads the entry point while it is being imported itself. Nothing of papermill can be imported before that.
    """
    if name != "engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from papermill.engines import NBClientEngine

    register()
    return NBClientEngine
