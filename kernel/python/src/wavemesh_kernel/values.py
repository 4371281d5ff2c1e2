"""`%rust_push` and `%rust_pull`: values between Python and Rust, through files in the kernel's private folder.

Tensors go as safetensors, everything else as JSON.
"""

import json
import keyword
import os
import re
from contextlib import contextmanager

from .errors import RustError, RustUsageError
from .literals import RUST_KEYWORDS, integer_type, rust_float, rust_string

# numpy's types and candle's; what candle lacks is widened.
TENSOR_TYPES = {
    "bool": "uint8",
    "int8": "int64",
    "int16": "int64",
    "int32": "int64",
    "uint16": "uint32",
    "uint8": "uint8",
    "uint32": "uint32",
    "int64": "int64",
    "float16": "float16",
    "float32": "float32",
    "float64": "float64",
}

PULL = """
{{
    trait WavemeshPull {{ fn pull(&self, file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>>; }}
    impl WavemeshPull for wavemesh::prelude::candle_core::Tensor {{
        fn pull(&self, file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {{
            use wavemesh::prelude::candle_core::DType;
            let whole = if self.dtype() == DType::BF16 {{ self.to_dtype(DType::F32)? }} else {{ self.clone() }};
            Ok(whole.contiguous()?.save_safetensors("value", file.with_extension("safetensors"))?)
        }}
    }}
    macro_rules! as_json {{ ($($kind:ty)*) => {{ $(impl WavemeshPull for $kind {{
        fn pull(&self, file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {{
            Ok(std::fs::write(file.with_extension("json"), wavemesh::prelude::serde_json::to_vec(self)?)?)
        }}
    }})* }} }}
    as_json!(String &str bool char i8 i16 i32 i64 isize u8 u16 u32 u64 usize);
    macro_rules! as_float {{ ($($kind:ty)*) => {{ $(impl WavemeshPull for $kind {{
        fn pull(&self, file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {{
            // JSON has no NaN; Python's float() reads what Rust prints.
            Ok(std::fs::write(file.with_extension("float"), self.to_string())?)
        }}
    }})* }} }}
    as_float!(f32 f64);
    (&{name}).pull(std::path::Path::new({file}))?;
}}
"""


def push(extension, names):
    """Gives each Python variable to Rust under its name."""
    for name in checked(names, "%rust_push"):
        if name not in extension.shell.user_ns:
            raise RustUsageError(f"%rust_push {name}: there is no Python variable of that name")
        extension.kernel.ensure_ready()
        with exchange_file(extension, name) as file:
            extension.run(rust_of(name, extension.shell.user_ns[name], file), store_history=False)


def pull(extension, names):
    """Gives each Rust variable to Python under its name."""
    for name in checked(names, "%rust_pull"):
        extension.kernel.ensure_ready()
        with exchange_file(extension, name) as file:
            try:
                extension.run(PULL.format(name=name, file=rust_string(file)), store_history=False)
            except RustError as error:
                text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.lines or [str(error)]))
                if "WavemeshPull" in text or "no method named `pull`" in text:
                    raise RustUsageError(
                        f"%rust_pull {name}: only candle tensors, strings, numbers and booleans can be pulled; "
                        "turn it into one of these first (Tensor::new, to_string, …)"
                    ) from None
                raise
            extension.shell.user_ns[name] = read(file)


def checked(names, magic):
    if not names:
        raise RustUsageError(f"{magic}: which variables? For example {magic} x")
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name == "_" or keyword.iskeyword(name) or name in RUST_KEYWORDS:
            raise RustUsageError(f"{magic}: {name!r} cannot name a variable in both Python and Rust")
    return names


@contextmanager
def exchange_file(extension, name):
    """The path, without its ending, of a file in the private folder. The file is removed at the end."""
    path = os.path.join(extension.kernel.folder, f"value-{name}")
    try:
        yield path
    finally:
        for ending in ("safetensors", "json", "float"):
            if os.path.exists(f"{path}.{ending}"):
                os.remove(f"{path}.{ending}")


def rust_of(name, value, file):
    """Rust code that binds `name` to `value`. Large values go through the file."""
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.shape == ():
        value = value.item()  # a numpy scalar
    if isinstance(value, bool):
        return f"let {name}: bool = {str(value).lower()};"
    if isinstance(value, int):
        kind = integer_type(value)
        if kind is None:
            raise RustUsageError(f"%rust_push {name}: {value} has more than 128 bits")
        return f"let {name}: {kind} = {value};"
    if isinstance(value, float):
        return f"let {name}: f64 = {rust_float(value)};"
    if isinstance(value, str):
        with open(f"{file}.json", "w", encoding="utf-8") as out:
            out.write(value)
        return f"let {name}: String = std::fs::read_to_string({rust_string(file + '.json')})?;"
    if hasattr(value, "__array__"):
        return rust_of_array(name, value, file)
    raise RustUsageError(
        f"%rust_push {name}: it is of type {type(value).__name__}; only numpy arrays, strings, numbers and booleans can be pushed "
        "(numpy.asarray makes an array of a list of numbers)"
    )


def rust_of_array(name, value, file):
    import numpy
    from safetensors.numpy import save_file

    array = numpy.asarray(value)
    kind = TENSOR_TYPES.get(array.dtype.name)
    if kind is None:
        raise RustUsageError(
            f"%rust_push {name}: an array of {array.dtype} has no counterpart in candle; convert it, for example with .astype('float32')"
        )
    save_file({"value": numpy.ascontiguousarray(array, dtype=kind)}, f"{file}.safetensors")
    path = rust_string(file + ".safetensors")
    return (
        f"let {name}: wavemesh::prelude::candle_core::Tensor = wavemesh::prelude::candle_core::safetensors::load("
        f'{path}, &wavemesh::prelude::candle_core::Device::Cpu)?.remove("value").ok_or("the tensor got lost")?;'
    )


def read(file):
    """The value that Rust wrote."""
    if os.path.exists(f"{file}.safetensors"):
        from safetensors.numpy import load_file

        return load_file(f"{file}.safetensors")["value"]
    if os.path.exists(f"{file}.float"):
        with open(f"{file}.float", encoding="utf-8") as text:
            return float(text.read())
    with open(f"{file}.json", encoding="utf-8") as text:
        return json.load(text)
