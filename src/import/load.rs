//! From a file's tensors to a network's parameters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;

use super::checkpoint::{Checkpoint, Origin};
use super::format::{Change, Pointwise, WeightFormat};
use super::report::{ImportReport, ImportedTensor};
use crate::sparse::layers::{LayerNote, layer_of};
use crate::{Error, Result};

/// How a file's tensors become a network's parameters. The defaults detect everything that the file tells.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The order of convolution weights. Default: the one order that fits all of the network's layers.
    pub format: Option<WeightFormat>,
    /// The text before the parameters' names in the file, such as `model_state.backbone_3d`. Default: the prefix under which most
    /// parameters are found.
    pub prefix: Option<String>,
    /// Parts of the network with another name in the file: (start of our names, start of theirs), in whole parts between dots. The first
    /// that fits is used.
    pub renames: Vec<(String, String)>,
    /// How to interpret given 1×1×1 layers of stride 1, against the rule of the format: (name of the layer, where `*` stands for any text,
    /// and the rule). The first that fits is used.
    pub pointwise: Vec<(String, Pointwise)>,
    /// Whether parameters may be missing in the file (for example a new head) and keep their values. Default false.
    pub allow_missing: bool,
}

setters! {
    ImportOptions {
        format(format: WeightFormat) => format = Some(format);
        prefix(prefix: impl Into<String>) => prefix = Some(prefix.into());
        renames(renames: Vec<(String, String)>) => renames = renames;
        pointwise(pointwise: Vec<(String, Pointwise)>) => pointwise = pointwise;
        allow_missing(allow_missing: bool) => allow_missing = allow_missing;
    }
}

impl Checkpoint {
    /// Sets every variable to the value of its tensor in this file, in the variable's type and on its device, and reports what was read,
    /// turned, missing and unread. Build the network first: its layers tell how their weights are to be interpreted.
    ///
    /// Names are those of the variables after one common prefix. A convolution's `weight` is also found as `kernel`, and layers that
    /// MinkowskiEngine wraps (`norm.bn.weight`, `linear.linear.weight`) under their plain names.
    ///
    /// # Errors
    /// [`Error::Format`]: it names the first tensor that is missing or has another shape, with the layer and the detected order; or it says
    /// what is ambiguous and which option decides it. The variables are then unchanged.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-load-into-example.safetensors");
    /// let layer = |variables: &VarMap| {
    ///     let vb = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
    ///     SubMConv3d::new(2, 4, 3, ConvConfig::new(), vb.pp("stem"))
    /// };
    /// let (trained, fresh) = (VarMap::new(), VarMap::new());
    /// let first = layer(&trained)?;
    /// trained.save(&path)?;
    /// let second = layer(&fresh)?; // built before its weights are read
    /// Checkpoint::open(&path)?.load_into(&fresh, &ImportOptions::default())?;
    /// assert_eq!(first.weight().flatten_all()?.to_vec1::<f32>()?, second.weight().flatten_all()?.to_vec1::<f32>()?);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "load_state_dict")]
    pub fn load_into(&self, variables: &VarMap, options: &ImportOptions) -> Result<ImportReport> {
        let data = variables.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let variables: BTreeMap<String, Var> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        drop(data);
        self.load_variables(&variables.into_iter().collect::<Vec<_>>(), options)
    }

    /// [`load_into`](Self::load_into) for variables in a list.
    pub(crate) fn load_variables(&self, variables: &[(String, Var)], options: &ImportOptions) -> Result<ImportReport> {
        if variables.is_empty() {
            return Err(Error::Argument {
                op: "Checkpoint::load_into",
                name: "variables",
                got: "an empty VarMap".into(),
                expected: "the variables of a network that was built before".into(),
            });
        }
        let prefix = match &options.prefix {
            Some(prefix) if prefix.is_empty() || prefix.ends_with('.') => prefix.clone(),
            Some(prefix) => format!("{prefix}."),
            None => self.prefix(variables, options)?,
        };
        let found: Vec<Found> = variables.iter().map(|(name, var)| self.find(name, var, &prefix, options)).collect();
        let format = self.format(&found, options)?;

        let mut report = ImportReport {
            format,
            prefix: prefix.clone(),
            read: Vec::new(),
            missing: Vec::new(),
            unread: Vec::new(),
            elsewhere: 0,
        };
        let mut values = Vec::new();
        for part in &found {
            let Some((from, tensor)) = part.tensor else {
                report.missing.push(part.name.into());
                continue;
            };
            let (value, change) = self.value(part, tensor, format, options)?;
            values.push((part.var, value.to_dtype(part.var.dtype())?.to_device(part.var.device())?));
            report.read.push(ImportedTensor {
                name: part.name.into(),
                from: from.into(),
                shape: tensor.dims().to_vec(),
                change: match change {
                    Change::None => "read",
                    Change::Reordered => "axes moved",
                    Change::Turned => "turned",
                },
            });
        }
        let used: BTreeSet<&str> = report.read.iter().map(|tensor| tensor.from.as_str()).collect();
        for name in self.names().filter(|name| !used.contains(name)) {
            match name.strip_prefix(&prefix) {
                Some(_) if name.ends_with("num_batches_tracked") => {}
                Some(_) => report.unread.push(name.into()),
                None => report.elsewhere += 1,
            }
        }
        if let (Some(first), false) = (report.missing.first(), options.allow_missing) {
            // Tensors with the same number of elements come first: most likely it is one of them.
            let size = variables.iter().find(|(name, _)| name == first).map(|(_, var)| var.elem_count());
            let (mut near, rest): (Vec<_>, Vec<_>) =
                report.unread.iter().partition(|&name| self.get(name).map(Tensor::elem_count) == size);
            near.extend(rest);
            let more = if near.len() > 5 { ", …" } else { "" };
            let near = near.into_iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            return Err(self.problem(format!(
                "{} of {} parameters have no tensor, the first is `{prefix}{first}`; the file's own names that were not used: {}; \
                 rename parts with ImportOptions::renames, or set allow_missing to keep the parameters as they are",
                report.missing.len(),
                variables.len(),
                if near.is_empty() { "none".into() } else { near + more },
            )));
        }
        for (var, value) in values {
            var.set(&value)?;
        }
        Ok(report)
    }

    /// The prefix under which most variables are found.
    fn prefix(&self, variables: &[(String, Var)], options: &ImportOptions) -> Result<String> {
        // Indexed by the last part of the name, so that a file with thousands of tensors is searched only once.
        let mut by_leaf: HashMap<&str, Vec<&str>> = HashMap::new();
        for name in self.names() {
            by_leaf.entry(leaf(name)).or_default().push(name);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in variables {
            let mut prefixes = BTreeSet::new();
            for alias in aliases(&renamed(name, options)) {
                for tensor in by_leaf.get(leaf(&alias)).into_iter().flatten() {
                    if let Some(prefix) = tensor.strip_suffix(alias.as_str())
                        && (prefix.is_empty() || prefix.ends_with('.'))
                    {
                        prefixes.insert(prefix);
                    }
                }
            }
            prefixes.into_iter().for_each(|prefix| *counts.entry(prefix).or_default() += 1);
        }
        let most = counts.values().max().copied().unwrap_or(0);
        let best: Vec<&str> = counts.iter().filter(|&(_, &count)| count == most).map(|(&prefix, _)| prefix).collect();
        match best[..] {
            [prefix] => Ok(prefix.into()),
            [] => Err(self.problem(format!(
                "none of the network's parameters is in it: they are called `{}`, …, its tensors `{}`, … under {}; rename parts with \
                 ImportOptions::renames",
                variables[0].0,
                self.names().next().unwrap_or_default(),
                self.groups().iter().map(|(name, count)| format!("`{name}` ({count})")).collect::<Vec<_>>().join(", "),
            ))),
            ref several => Err(self.problem(format!(
                "the network's parameters are found equally often under {}; choose with ImportOptions::prefix",
                several.iter().map(|prefix| format!("`{}`", prefix.trim_end_matches('.'))).collect::<Vec<_>>().join(", "),
            ))),
        }
    }

    fn find<'a>(&'a self, name: &'a str, var: &'a Var, prefix: &str, options: &ImportOptions) -> Found<'a> {
        let names = aliases(&renamed(name, options));
        let tensor = names.iter().find_map(|alias| self.tensors().get_key_value(&format!("{prefix}{alias}")));
        Found { name, var, layer: layer_of(var), tensor: tensor.map(|(name, tensor)| (name.as_str(), tensor)) }
    }

    /// The one order that fits all convolution weights of the file.
    fn format(&self, found: &[Found], options: &ImportOptions) -> Result<Option<WeightFormat>> {
        let layers: Vec<(&LayerNote, &str, &Tensor)> = found
            .iter()
            .filter_map(|part| Some((part.layer.as_deref()?, part.tensor?)))
            .map(|(layer, (name, tensor))| (layer, name, tensor))
            .collect();
        if layers.is_empty() || options.format.is_some() {
            return Ok(options.format.filter(|_| !layers.is_empty()));
        }
        let fits = |format: &WeightFormat| {
            let by_name = matches!(format, WeightFormat::TorchSparse | WeightFormat::Minkowski);
            layers.iter().all(|&(layer, name, tensor)| {
                tensor.dims() == format.shape(layer) && (leaf(name) == "kernel") == by_name
            })
        };
        let mut fitting: Vec<WeightFormat> = WeightFormat::ALL.into_iter().filter(fits).collect();
        if fitting.is_empty() {
            return Err(self.no_format(&layers));
        }
        // Our own files are never pickles. Without 1×1×1 layers of stride 1 they equal spconv's.
        let has_pointwise = layers.iter().any(|(layer, ..)| layer.pointwise);
        let other = match self.origin() {
            Origin::WaveMesh => Some(WeightFormat::Spconv2),
            Origin::Pickle => Some(WeightFormat::WaveMesh),
            Origin::Safetensors => (!has_pointwise).then_some(WeightFormat::WaveMesh),
        };
        if [WeightFormat::WaveMesh, WeightFormat::Spconv2].iter().all(|format| fitting.contains(format)) {
            fitting.retain(|&format| Some(format) != other);
        }
        // Odd kernels have the same order in both.
        if layers.iter().all(|(layer, ..)| layer.kernel.iter().product::<usize>() % 2 == 1) {
            fitting.retain(|&format| format != WeightFormat::TorchSparse || !fitting_minkowski(&layers));
        }
        match fitting[..] {
            [format] => Ok(Some(format)),
            _ => Err(self.problem(format!(
                "its convolution weights fit {} alike; say which with ImportOptions::format",
                fitting.iter().map(|format| format.describe()).collect::<Vec<_>>().join(" and "),
            ))),
        }
    }

    /// The error if no order fits all layers: it names the first layer that the best order does not fit.
    fn no_format(&self, layers: &[(&LayerNote, &str, &Tensor)]) -> Error {
        let fit = |format: &WeightFormat| {
            layers.iter().filter(|(layer, _, tensor)| tensor.dims() == format.shape(layer)).count()
        };
        let best = WeightFormat::ALL.into_iter().rev().max_by_key(fit).unwrap_or(WeightFormat::Spconv2);
        let odd = layers.iter().find(|(layer, _, tensor)| tensor.dims() != best.shape(layer));
        let (layer, name, tensor) = odd.unwrap_or(&layers[0]);
        self.problem(format!(
            "tensor `{name}` has shape {:?}; {} of its {} convolution weights are laid out as {}, which for {} is {:?}; check the \
             layer's channels and kernel",
            tensor.dims(),
            fit(&best),
            layers.len(),
            best.describe(),
            layer.description,
            best.shape(layer),
        ))
    }

    /// A variable's value from its tensor.
    fn value(
        &self,
        part: &Found,
        tensor: &Tensor,
        format: Option<WeightFormat>,
        options: &ImportOptions,
    ) -> Result<(Tensor, Change)> {
        let mismatch = |expected: &[usize], what: &str| {
            self.problem(format!(
                "tensor `{}` has shape {:?}, and `{}` of the network needs {expected:?}{what}",
                part.tensor.map_or("", |(name, _)| name),
                tensor.dims(),
                part.name,
            ))
        };
        if let (Some(layer), Some(format)) = (&part.layer, format) {
            let expected = format.shape(layer);
            if tensor.dims() != expected {
                let what = format!(": {} in the order of {}", layer.description, format.describe());
                return Err(mismatch(&expected, &what));
            }
            let name = part.name.rsplit_once('.').map_or(part.name, |(layer, _)| layer);
            let rule = options.pointwise.iter().find(|(pattern, _)| matches(pattern, name));
            return format.convert(tensor, layer, rule.map_or(format.pointwise(), |&(_, rule)| rule));
        }
        let dims = part.var.dims();
        if let [output, 1, 1, 1, input] = *dims
            && leaf(part.name) == "weight"
        {
            return Err(self.problem(format!(
                "`{}` of shape [{output}, 1, 1, 1, {input}] belongs to no layer that lives, and only the layer tells how a 1×1×1 weight \
                 is meant; import while the network exists",
                part.name
            )));
        }
        // MinkowskiEngine stores a bias as one row.
        if tensor.dims() != dims && !(tensor.dims().first() == Some(&1) && tensor.dims()[1..] == *dims) {
            return Err(mismatch(dims, ""));
        }
        Ok((tensor.reshape(dims)?.contiguous()?, Change::None))
    }
}

/// A variable and its tensor in the file.
struct Found<'a> {
    name: &'a str,
    var: &'a Var,
    layer: Option<Arc<LayerNote>>,
    tensor: Option<(&'a str, &'a Tensor)>,
}

fn fitting_minkowski(layers: &[(&LayerNote, &str, &Tensor)]) -> bool {
    layers.iter().all(|(layer, _, tensor)| tensor.dims() == WeightFormat::Minkowski.shape(layer))
}

fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A variable's name with the renames applied.
fn renamed(name: &str, options: &ImportOptions) -> String {
    for (ours, theirs) in &options.renames {
        if let Some(rest) = name.strip_prefix(ours.as_str())
            && (rest.is_empty() || rest.starts_with('.') || ours.is_empty())
        {
            let rest = rest.trim_start_matches('.');
            return if theirs.is_empty() {
                rest.into()
            } else {
                format!("{theirs}.{rest}").trim_end_matches('.').into()
            };
        }
    }
    name.into()
}

/// The names under which other libraries store a parameter.
fn aliases(name: &str) -> Vec<String> {
    let (layer, leaf) = name.rsplit_once('.').map_or(("", name), |(layer, leaf)| (layer, leaf));
    let in_layer = |leaf: &str| if layer.is_empty() { leaf.to_string() } else { format!("{layer}.{leaf}") };
    let mut names = vec![name.to_string()];
    if leaf == "weight" {
        names.push(in_layer("kernel"));
    }
    // MinkowskiBatchNorm and MinkowskiLinear wrap PyTorch's.
    names.extend(["bn", "linear"].map(|wrapped| in_layer(&format!("{wrapped}.{leaf}"))));
    names
}

/// Whether the pattern equals `name` for some text in place of `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        assert!(
            matches("a.*.skip", "a.b.c.skip") && matches("*", "") && matches("x", "x") && matches("*skip*", "skip")
        );
        assert!(!matches("a.*", "b.a.c") && !matches("skip", "a.skip") && !matches("a*b", "a"));
    }

    #[test]
    fn renames_replace_whole_parts() {
        let options = ImportOptions {
            renames: vec![("net".into(), "module.unet".into()), ("head".into(), String::new())],
            ..Default::default()
        };
        assert_eq!(renamed("net.conv.weight", &options), "module.unet.conv.weight");
        assert_eq!(renamed("head.weight", &options), "weight");
        assert_eq!(renamed("network.weight", &options), "network.weight");
    }
}
