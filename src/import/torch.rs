//! PyTorch's files: `torch.save`'s zip archives and the older stream of pickles.
//!
//! Both hold one pickle of the saved object, in which a tensor is a view (offset, size, stride) of a storage outside the pickle. Every
//! tensor in dictionaries, lists and modules gets the name with which PyTorch would reach it, joined by dots:
//! `model_state.backbone.conv1.weight`.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};

use candle_core::{DType, Device, Tensor};

use super::pickle::{Id, Node, Values};

/// The first pickle in a file of the older format.
const LEGACY_MAGIC: i64 = 0xa86a_20f9_469c_fc6c_u64 as i64;

/// Named tensors.
pub(super) type Tensors = BTreeMap<String, Tensor>;

/// Reads the tensors of a `.pth` file.
///
/// # Errors
/// A text that says what is wrong with the file.
pub(super) fn read(bytes: &[u8]) -> Result<Tensors, String> {
    let mut values = Values::default();
    let (root, storages) =
        if bytes.starts_with(b"PK") { archive(&mut values, bytes)? } else { stream(&mut values, bytes)? };
    let mut walk = Walk { values: &values, storages: &storages, tensors: Tensors::new(), inside: Vec::new() };
    walk.visit(root, "")?;
    Ok(walk.tensors)
}

/// Raw bytes of storages, by key.
type Storages<'a> = HashMap<String, std::borrow::Cow<'a, [u8]>>;

fn archive<'a>(values: &mut Values, bytes: &'a [u8]) -> Result<(Id, Storages<'a>), String> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let names = zip.file_names().map(|name| Ok(name.map_err(|error| error.to_string())?.into_owned()));
    let names = names.collect::<Result<Vec<String>, String>>()?;
    let pickle = names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(pickle) = pickle else {
        return Err("the zip archive has no data.pkl: torch.save did not write it".into());
    };
    let folder = pickle.trim_end_matches("data.pkl");
    let mut entry = |name: &str| -> Result<Vec<u8>, String> {
        let mut file = zip.by_name(name).map_err(|error| format!("{name}: {error}"))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(|error| format!("{name}: {error}"))?;
        Ok(content)
    };
    let order = format!("{folder}byteorder");
    if names.contains(&order) && entry(&order)?.trim_ascii() == b"big" {
        return Err("its numbers are big-endian; save it again on a little-endian machine".into());
    }
    let (root, _) = values.read(&entry(pickle)?)?;
    let data = format!("{folder}data/");
    let mut storages = Storages::new();
    for name in &names {
        if let Some(key) = name.strip_prefix(&data) {
            storages.insert(key.to_string(), entry(name)?.into());
        }
    }
    Ok((root, storages))
}

fn stream<'a>(values: &mut Values, bytes: &'a [u8]) -> Result<(Id, Storages<'a>), String> {
    if bytes.get(257..262) == Some(b"ustar") {
        return Err(
            "it is a tar archive, PyTorch's format before 2017; load and save it once with a newer PyTorch".into()
        );
    }
    let (magic, rest) =
        values.read(bytes).map_err(|problem| format!("it is neither a zip archive nor a pickle: {problem}"))?;
    if values.int(magic) != Some(LEGACY_MAGIC) {
        return Err("it is a pickle, but torch.save did not write it".into());
    }
    let (_protocol, rest) = values.read(rest)?;
    let (_system, rest) = values.read(rest)?;
    let (root, rest) = values.read(rest)?;
    let (keys, mut rest) = values.read(rest)?;
    // The length of a storage follows from its type, which only its tensors tell.
    let mut sizes = HashMap::new();
    for id in 0..values.len() {
        if let Node::Persistent(id) = values.get(id)
            && let Ok(storage) = Storage::of(values, *id)
        {
            sizes.insert(storage.key, storage.kind.map_or(1, Kind::bytes));
        }
    }
    let mut storages = Storages::new();
    for &key in values.sequence(keys).ok_or("its list of storages is not a list")? {
        let key = values.text(key).ok_or("a storage without a name")?;
        let (count, behind) = rest.split_first_chunk::<8>().ok_or("the file ends before its storages do")?;
        let size = *sizes.get(key).ok_or(format!("storage `{key}` belongs to no tensor"))?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(size));
        let (content, behind) =
            length.and_then(|length| behind.split_at_checked(length)).ok_or("the file ends before its storages do")?;
        storages.insert(key.to_string(), content.into());
        rest = behind;
    }
    Ok((root, storages))
}

/// The element types of PyTorch's storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Same(DType),
    I8,
}

impl Kind {
    /// The kind for `FloatStorage`, `float32` and the like.
    fn named(name: &str) -> Option<Self> {
        Some(Self::Same(match name.trim_end_matches("Storage") {
            "Float" | "float32" => DType::F32,
            "Double" | "float64" => DType::F64,
            "Half" | "float16" => DType::F16,
            "BFloat16" | "bfloat16" => DType::BF16,
            "Long" | "int64" => DType::I64,
            "Int" | "int32" => DType::I32,
            "Short" | "int16" => DType::I16,
            "Byte" | "uint8" | "Bool" | "bool" => DType::U8,
            "Char" | "int8" => return Some(Self::I8),
            _ => return None,
        }))
    }

    fn bytes(self) -> usize {
        match self {
            Self::Same(dtype) => dtype.size_in_bytes(),
            Self::I8 => 1,
        }
    }
}

/// A storage, as a tensor refers to it.
struct Storage {
    key: String,
    /// `None` for an untyped storage; its tensors tell their type.
    kind: Option<Kind>,
    /// The first byte, for a view in an older file.
    start: usize,
}

impl Storage {
    /// Reads `('storage', class, key, device, elements[, view])`.
    fn of(values: &Values, id: Id) -> Result<Self, String> {
        let parts =
            values.sequence(id).filter(|parts| parts.len() >= 5).ok_or("a storage that PyTorch did not write")?;
        let Node::Global(_, class) = values.get(parts[1]) else { return Err("a storage without a type".into()) };
        let kind = Kind::named(class);
        if kind.is_none() && class != "UntypedStorage" {
            return Err(format!("a storage of type {class}, which is not supported"));
        }
        let key = match values.get(parts[2]) {
            Node::Text(key) => key.clone(),
            Node::Int(key) => key.to_string(),
            _ => return Err("a storage without a name".into()),
        };
        let view = parts.get(5).and_then(|&view| values.sequence(view));
        let first =
            view.and_then(|view| values.int(*view.get(1)?)).map_or(Some(0), |first| usize::try_from(first).ok());
        let start = first.and_then(|first| first.checked_mul(kind.map_or(1, Kind::bytes)));
        Ok(Self { key, kind, start: start.ok_or("a view that begins before its storage")? })
    }
}

struct Walk<'a> {
    values: &'a Values,
    storages: &'a Storages<'a>,
    tensors: Tensors,
    /// The values that contain the current one: a value that contains itself is not visited again.
    inside: Vec<Id>,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, name: &str) -> Result<(), String> {
        const DEEPEST: usize = 200;
        if self.inside.contains(&id) || self.inside.len() > DEEPEST {
            return Ok(());
        }
        self.inside.push(id);
        match self.values.get(id) {
            Node::Dict(items) => self.items(items, name)?,
            Node::Sequence(items) => {
                for (at, &item) in items.iter().enumerate() {
                    self.visit(item, &joined(name, &at.to_string()))?;
                }
            }
            Node::Object { callable, arguments, items, state } => {
                let callable = self.values.global(*callable).unwrap_or_default();
                let arguments = self.values.sequence(*arguments).unwrap_or_default();
                self.object(&callable, arguments, name)?;
                self.items(items, name)?;
                if let Some(Node::Dict(attributes)) = state.map(|state| self.values.get(state)) {
                    self.items(attributes, name)?;
                }
            }
            _ => {}
        }
        self.inside.pop();
        Ok(())
    }

    fn items(&mut self, items: &[(Id, Id)], name: &str) -> Result<(), String> {
        for &(key, value) in items {
            let key = match self.values.get(key) {
                Node::Text(key) => key.clone(),
                Node::Int(key) => key.to_string(),
                _ => continue,
            };
            match key.as_str() {
                // A pickled module keeps its parts under these keys, which its state_dict leaves out of names.
                "_parameters" | "_buffers" | "_modules" => self.visit(value, name)?,
                // The version numbers in a state_dict.
                "_metadata" => {}
                key => self.visit(value, &joined(name, key))?,
            }
        }
        Ok(())
    }

    fn object(&mut self, callable: &str, arguments: &[Id], name: &str) -> Result<(), String> {
        let function = callable.rsplit('.').next().unwrap_or_default();
        match (function, arguments) {
            ("_rebuild_tensor" | "_rebuild_tensor_v2", &[storage, offset, size, stride, ..]) => {
                self.tensor(name, [storage, offset, size, stride], None)
            }
            ("_rebuild_tensor_v3", &[storage, offset, size, stride, _, _, dtype, ..]) => {
                self.tensor(name, [storage, offset, size, stride], Some(dtype))
            }
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", &[data, ..]) => self.visit(data, name),
            ("_rebuild_from_type_v2", &[function, _, arguments, ..]) => {
                let function = self.values.global(function).unwrap_or_default();
                self.object(&function, self.values.sequence(arguments).unwrap_or_default(), name)
            }
            _ => Ok(()),
        }
    }

    fn tensor(&mut self, name: &str, parts: [Id; 4], dtype: Option<Id>) -> Result<(), String> {
        let tensor = self.view(parts, dtype).map_err(|problem| format!("tensor `{name}`: {problem}"))?;
        self.tensors.insert(name.to_string(), tensor);
        Ok(())
    }

    fn view(&self, [storage, offset, size, stride]: [Id; 4], dtype: Option<Id>) -> Result<Tensor, String> {
        let Node::Persistent(storage) = self.values.get(storage) else { return Err("it has no storage".into()) };
        let storage = Storage::of(self.values, *storage)?;
        let named = dtype.and_then(|dtype| self.values.global(dtype));
        let named = named.and_then(|name| Kind::named(name.rsplit('.').next().unwrap_or_default()));
        let kind = named.or(storage.kind).ok_or("its element type is not supported")?;
        let content = self.storages.get(&storage.key).ok_or(format!("storage `{}` is missing", storage.key))?;
        let sizes = |id| -> Option<Vec<usize>> {
            self.values.sequence(id)?.iter().map(|&n| usize::try_from(self.values.int(n)?).ok()).collect()
        };
        let (size, stride) = (
            sizes(size).ok_or("its size is not a list of numbers")?,
            sizes(stride).ok_or("its stride is not a list of numbers")?,
        );
        let offset =
            self.values.int(offset).and_then(|n| usize::try_from(n).ok()).ok_or("its offset is not a number")?;
        if size.len() != stride.len() {
            return Err("its size and stride have different lengths".into());
        }
        let bytes = strided(content, storage.start, kind.bytes(), offset, &size, &stride)
            .ok_or_else(|| format!("a view of {size:?} reaches beyond its storage of {} bytes", content.len()))?;
        let tensor = match kind {
            Kind::Same(dtype) => Tensor::from_raw_buffer(&bytes, dtype, &size, &Device::Cpu),
            Kind::I8 => {
                Tensor::from_vec(bytes.iter().map(|&b| i64::from(b as i8)).collect::<Vec<_>>(), size, &Device::Cpu)
            }
        };
        tensor.map_err(|error| error.to_string())
    }
}

/// The elements of a view, one after another in row-major order; `None` if it reaches outside.
fn strided(
    content: &[u8],
    start: usize,
    width: usize,
    offset: usize,
    size: &[usize],
    stride: &[usize],
) -> Option<Vec<u8>> {
    let count = size.iter().try_fold(1usize, |count, &n| count.checked_mul(n))?;
    if count == 0 {
        return Some(Vec::new());
    }
    let reach =
        size.iter().zip(stride).try_fold(offset, |reach, (&n, &step)| reach.checked_add((n - 1).checked_mul(step)?))?;
    let content = content.get(start..)?;
    if reach.checked_add(1)?.checked_mul(width)? > content.len() {
        return None;
    }
    let mut expected = 1;
    let is_dense = size.iter().zip(stride).rev().all(|(&n, &step)| {
        let fits = n == 1 || step == expected;
        expected *= n;
        fits
    });
    if is_dense {
        return Some(content[offset * width..(offset + count) * width].to_vec());
    }
    // A view may repeat elements (stride 0); a damaged size must not request all memory.
    const MOST: usize = 1 << 26;
    if count > MOST.max(content.len() / width) {
        return None;
    }
    let mut bytes = Vec::with_capacity(count * width);
    let mut at = vec![0; size.len()];
    for _ in 0..count {
        let element = offset + at.iter().zip(stride).map(|(i, step)| i * step).sum::<usize>();
        bytes.extend_from_slice(&content[element * width..][..width]);
        for axis in (0..size.len()).rev() {
            at[axis] += 1;
            if at[axis] < size[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    Some(bytes)
}

fn joined(name: &str, part: &str) -> String {
    if name.is_empty() { part.to_string() } else { format!("{name}.{part}") }
}
