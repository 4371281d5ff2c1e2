"""Reads the defaults of parameters out of a Rust cell: `let steps: u16 = 10; // how many`.

This is not a parser of Rust. It knows literals, lists of them, and the usual ways to make a string. All else is `unknown`.
"""

import re
from dataclasses import dataclass, field

from .literals import INTEGERS

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<string>[bc]?"(?:\\.|[^"\\])*"|[bc]?r(?P<hashes>\#*)".*?"(?P=hashes))
    |(?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^'\\])')
    |(?P<word>(?:r\#)?\w+)
    |(?P<space>\s+)
    |(?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)
BINDING = re.compile(
    r"(?:\#\[.*?\]\s*)*(?:pub\s+)?(?P<keyword>let\s+mut|let|const|static\s+mut|static)\s+(?:r\#)?(?P<name>[^\W\d]\w*)\s*(?=[:=])(?P<rest>.*)",
    re.DOTALL,
)
TUPLE = re.compile(r"let\s*\((?P<names>[\w\s,]*)\)\s*(?=[:=])(?P<rest>.*)", re.DOTALL)
NUMBER_KIND = "|".join([*INTEGERS, "f32", "f64"])
INTEGER = re.compile(rf"-?\s*(?:0x[0-9a-fA-F_]+?|0o[0-7_]+|0b[01_]+|\d[\d_]*?)_*(?P<kind>{'|'.join(INTEGERS)})?")
FLOAT = re.compile(r"-?\s*\d[\d_]*(?:\.(?:\d[\d_]*)?)?(?:[eE][+-]?[\d_]+)?(?P<kind>f32|f64)?")
CONSTANT = re.compile(rf"-?\s*(?:std::|core::)?(?P<kind>{NUMBER_KIND})::(?:consts::)?[A-Z][A-Z0-9_]*")
CAST = re.compile(rf".*\bas\s+(?P<kind>{NUMBER_KIND})", re.DOTALL)
TEXT_OWNED = re.compile(r"String::(?:new\(\)|from\(.*\))|\".*\.to_owned\(\)|.*\.to_string\(\)|format!.*", re.DOTALL)
MAP = re.compile(r"(?P<path>(?:\w+::)*(?:HashMap|BTreeMap))")


@dataclass
class Form:
    """What is known of a default's type.

    `kind` is one of integer, float, bool, char, str, String, option, vec, array, slice, tuple, map, unknown.
    """

    kind: str
    number: str | None = None  # its type, such as "u16", if the text has it
    parts: list["Form"] = field(default_factory=list)  # all parts of a tuple; key and value of a map; else the elements' form
    length: int | None = None  # the length of an array
    path: str = ""  # the path of a map's type, as the text has it

    def settled(self):
        """Whether a literal of this form has this one type, whatever the rest of the notebook does."""
        if self.kind in ("integer", "float"):
            return self.number is not None
        return self.kind != "unknown" and all(part.settled() for part in self.parts)

    def name(self):
        """The type as Rust writes it, with `_` for what is unknown."""
        first = self.parts[0].name() if self.parts else "_"
        names = {
            "integer": self.number or "i32",
            "float": self.number or "f64",
            "str": "&str",
            "option": f"Option<{first}>",
            "vec": f"Vec<{first}>",
            "array": f"[{first}; {self.length}]",
            "slice": f"&[{first}]",
            "tuple": f"({', '.join(part.name() for part in self.parts)})",
            "map": f"{self.path}<{', '.join(part.name() for part in self.parts)}>",
            "unknown": "_",
        }
        return names.get(self.kind, self.kind)


UNKNOWN = Form("unknown")


@dataclass
class Default:
    """A parameter of the cell."""

    name: str
    keyword: str  # `let`, `let mut`, `const`, …
    annotation: str  # the type in the text, or ""
    text: str  # the text of the value
    help: str  # the comment after it
    form: Form

    def is_annotated(self):
        """Whether the text has the whole type."""
        return bool(self.annotation) and not re.search(r"\b_\b", self.annotation)

    def suffix(self, form):
        """The suffix for a number of this form, or "" if the annotation gives its type."""
        return "" if self.is_annotated() or form.number is None else f"_{form.number}"


def read_defaults(source):
    """The parameters that a cell binds, by name. If a name is bound twice, the later binding counts."""
    return {default.name: default for text, comment in statements(source) for default in bindings(text, comment)}


def statements(source):
    """The statements of a cell without their comments, each with the comment that follows it on its line."""
    found, text, depth, at = [], "", 0, 0
    while at < len(source):
        token = TOKEN.match(source, at)
        kind, word, at = token.lastgroup, token.group(), token.end()
        if kind == "hashes":
            kind = "string"
        if not text.strip() and kind == "mark" and word in ":!%":
            at = (source.find("\n", at) + 1) or len(source)  # a command of the kernel
        elif kind == "comment":
            if found and not text.strip() and "\n" not in text and not found[-1][1]:
                found[-1] = (found[-1][0], word.strip("/* \t"))
        else:
            text += word
            depth += (word in ("(", "[", "{")) - (word in (")", "]", "}"))
            begun = text.split(None, 1)[:1]
            if depth == 0 and (word == ";" or word == "}" and begun and begun[0] not in ("let", "const", "static", "pub")):
                found.append((text.strip().rstrip(";"), ""))
                text = ""
    return found


def bindings(text, comment):
    """What a statement binds."""
    if match := BINDING.fullmatch(text):
        annotation, value = split_type(match["rest"])
        if not value:
            return []
        form = merged(form_of_type(annotation), form_of_value(value))
        return [Default(match["name"], " ".join(match["keyword"].split()), annotation, value, comment, form)]
    if match := TUPLE.fullmatch(text):
        value = split_type(match["rest"])[1]
        words = [name.split() for name in match["names"].split(",")]
        return [Default(word[-1], " ".join(["let", *word[:-1]]), "", value, comment, UNKNOWN) for word in words if word and value]
    return []


def split_type(rest):
    """The type and the value of `: type = value`."""
    depth = 0
    for at, letter in enumerate(rest):
        if letter in "<([{":
            depth += 1
        elif letter in ")]}" or letter == ">" and rest[at - 1] != "-":
            depth -= 1
        elif letter == "=" and depth == 0:
            return rest[:at].lstrip(": \t\n").strip(), rest[at + 1 :].strip()
    return "", ""


def form_of_type(text):
    """What a type's text says."""
    text = text.strip()
    if text in INTEGERS:
        return Form("integer", text)
    if text in ("f32", "f64"):
        return Form("float", text)
    if text in ("bool", "char", "String"):
        return Form(text)
    if re.fullmatch(r"&\s*(?:'\w+\s+)?str", text):
        return Form("str")
    if match := re.fullmatch(r"(?:std::)?(?:option::|vec::)?(Option|Vec)<(.*)>", text, re.DOTALL):
        return Form(match[1].lower(), parts=[form_of_type(match[2])])
    if match := re.fullmatch(rf"{MAP.pattern}<(?P<inner>.*)>", text, re.DOTALL):
        inner = split_list(match["inner"])
        return Form("map", parts=[form_of_type(part) for part in inner], path=match["path"]) if len(inner) == 2 else UNKNOWN
    if match := re.fullmatch(r"\[(.*);\s*(\d+)\s*\]", text, re.DOTALL):
        return Form("array", parts=[form_of_type(match[1])], length=int(match[2]))
    if match := re.fullmatch(r"&\s*(?:'\w+\s+)?\[(.*)\]", text, re.DOTALL):
        return Form("slice", parts=[form_of_type(match[1])])
    if (match := re.fullmatch(r"\((.*)\)", text, re.DOTALL)) and len(inner := split_list(match[1])) > 1:
        return Form("tuple", parts=[form_of_type(part) for part in inner])
    return UNKNOWN


def form_of_value(text):
    """What a value's text says."""
    text = text.strip()
    if text in ("true", "false"):
        return Form("bool")
    if match := INTEGER.fullmatch(text) or CAST.fullmatch(text) or CONSTANT.fullmatch(text) or FLOAT.fullmatch(text):
        kind = match["kind"]
        is_integer = kind in INTEGERS if kind else match.re is INTEGER
        return Form("integer" if is_integer else "float", kind)
    token = TOKEN.fullmatch(text)
    if token and token["string"] and text[0] in '"r':
        return Form("str")
    if token and token["char"] and text[0] == "'":
        return Form("char")
    if TEXT_OWNED.fullmatch(text):
        return Form("String")
    if text == "None":
        return Form("option", parts=[UNKNOWN])
    if match := re.fullmatch(r"Some\((.*)\)", text, re.DOTALL):
        return Form("option", parts=[form_of_value(match[1])])
    if match := re.fullmatch(rf"{MAP.pattern}::(?:new\(\)|from\(\s*\[(?P<inner>.*)\]\s*\))", text, re.DOTALL):
        pairs = form_of_value(f"[{match['inner'] or ''}]").parts[0]
        return Form("map", parts=pairs.parts if pairs.kind == "tuple" else [UNKNOWN, UNKNOWN], path=match["path"])
    if match := re.fullmatch(r"vec!\s*\[(.*)\]|Vec::new\(\)|Vec::from\(\s*\[(.*)\]\s*\)|\[(.*)\]\.to_vec\(\)", text, re.DOTALL):
        return Form("vec", parts=[elements(next((group for group in match.groups() if group), ""))[0]])
    if match := re.fullmatch(r"(&?)\s*\[(.*)\]", text, re.DOTALL):
        form, length = elements(match[2])
        return Form("array", parts=[form], length=length) if not match[1] else UNKNOWN
    if match := re.fullmatch(r"\((.*)\)", text, re.DOTALL):
        inner = split_list(match[1])
        return Form("tuple", parts=[form_of_value(part) for part in inner]) if len(inner) > 1 else form_of_value(match[1])
    return UNKNOWN


def elements(text):
    """The form that all elements of a list have, and their number if the text has it."""
    if len(repeated := split_list(text, ";")) == 2:
        return form_of_value(repeated[0]), int(repeated[1]) if repeated[1].strip().isdecimal() else None
    parts = split_list(text)
    form = UNKNOWN
    for part in parts:
        form = merged(form, form_of_value(part))
    return form, len(parts)


def split_list(text, separator=","):
    """The parts between separators that are outside all brackets."""
    parts, depth, at = [""], 0, 0
    while at < len(text):
        token = TOKEN.match(text, at)
        word, at = token.group(), token.end()
        depth += (word in ("(", "[", "{", "<")) - (word in (")", "]", "}", ">"))
        if word == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += word
    return [part for part in parts if part.strip()]


def merged(first, second):
    """Joins what two texts say about one type. Where they differ, the first counts."""
    if first.kind == "unknown" or second.kind == "unknown":
        return second if first.kind == "unknown" else first
    if first.kind != second.kind or len(first.parts) != len(second.parts):
        return first
    parts = [merged(one, other) for one, other in zip(first.parts, second.parts, strict=True)]
    return Form(first.kind, first.number or second.number, parts, first.length or second.length, first.path or second.path)
