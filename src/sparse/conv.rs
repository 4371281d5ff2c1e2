//! The common part of the convolution layers: parameters, kernel maps by `indice_key`, and their checks.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_nn::{Init, VarBuilder};

use super::backend::{Backend, Convolve, Flow};
use super::geometry::{Geometry, Kind, OutputSites, Size, three};
use super::grid::Grid;
use super::kept::Kept;
use super::kernel_map::{IndiceData, KernelMap};
use super::layers::{self, LayerNote};
use super::sites::{MapBody, Sites};
use super::tensor::SparseConvTensor;
use crate::{Error, Result, memory};

/// Options of the convolution layers. Triples are (z, y, x); those of 2-D layers are (y, x).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvConfig<const N: usize = 3> {
    /// Step between outputs. Default 1. Submanifold and inverse layers ignore it.
    pub stride: [usize; N],
    /// Cells added around the grid. Default 0. Submanifold and inverse layers ignore it.
    pub padding: [usize; N],
    /// Distance between neighbouring kernel taps. Default 1. Inverse layers ignore it.
    pub dilation: [usize; N],
    /// Whether each output channel has a learned constant, which is added at active sites only. Default true.
    pub bias: bool,
    /// The name under which later layers of the chain find this layer's kernel map. Default none.
    pub indice_key: Option<String>,
    /// Which output sites a strided convolution has. Default [`OutputSites::Reachable`].
    pub output_sites: OutputSites,
}

impl<const N: usize> Default for ConvConfig<N> {
    fn default() -> Self {
        Self {
            stride: [1; N],
            padding: [0; N],
            dilation: [1; N],
            bias: true,
            indice_key: None,
            output_sites: OutputSites::default(),
        }
    }
}

setters! {
    ConvConfig[const N] {
        stride(stride: impl Into<Size<N>>) => stride = stride.into().0;
        padding(padding: impl Into<Size<N>>) => padding = padding.into().0;
        dilation(dilation: impl Into<Size<N>>) => dilation = dilation.into().0;
        bias(bias: bool) => bias = bias;
        key(key: impl Into<String>) => indice_key = Some(key.into());
        output_sites(output_sites: OutputSites) => output_sites = output_sites;
    }
}

/// A layer, as the maps that it makes know it.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    /// Type of the layer.
    pub layer: &'static str,
    /// Type, arguments and the name of its parameters, as errors name the layer.
    pub description: Arc<str>,
    pub indice_key: Option<String>,
}

impl Maker {
    /// The layer's entry for the dictionary of its output.
    pub fn entry(&self, map: &KernelMap) -> Option<(&str, IndiceData)> {
        let data = || IndiceData { map: map.clone(), made_by: self.description.clone() };
        self.indice_key.as_deref().map(|key| (key, data()))
    }

    /// The reversed flow over the map of the layer's key, whose kernel must be `kernel`.
    pub fn invert_flow(&self, kernel: [usize; 3], x: &SparseConvTensor) -> Result<Flow> {
        let key = self.indice_key.as_deref().unwrap_or_default();
        let Some(data) = x.find_indice(key) else {
            let known: Vec<_> = x.indice_dict().keys().map(String::as_str).collect();
            let dropped = x.dropped_by(key).map_or(String::new(), |op| {
                format!("; {op} gave the tensor other sites and dropped the key: run this layer on the sites of the one it inverts")
            });
            return Err(Error::Argument {
                op: self.layer,
                name: "indice_key",
                got: format!("`{key}` in {}", self.description),
                expected: match known.is_empty() {
                    true => format!("the key of a layer that ran before; none of them has a key{dropped}"),
                    false => format!("the key of a layer that ran before, one of {}{dropped}", known.join(", ")),
                },
            });
        };
        let map = &data.map;
        if map.geometry.kind == Kind::Submanifold {
            return Err(self.misuse(data, "a submanifold layer keeps its sites, there is nothing to invert".into()));
        }
        if map.geometry.kernel != kernel {
            let problem = format!("its kernel is {:?}, this layer's {:?}", map.geometry.kernel, kernel);
            return Err(self.misuse(data, problem));
        }
        if !map.target.same(x.sites()) {
            return Err(self.misuse(data, self.other_sites(x, "output", &map.target)));
        }
        Ok(Flow::inverse(map))
    }

    /// Checks that a tensor has as many axes as the layer.
    pub fn check_axes(&self, axes: usize, x: &SparseConvTensor) -> Result<()> {
        if x.ndim() == axes {
            return Ok(());
        }
        Err(Error::Argument {
            op: self.layer,
            name: "x",
            got: format!("a {}-D tensor", x.ndim()),
            expected: format!("a {axes}-D one for {}; the columns of its indices decide", self.description),
        })
    }

    fn misuse(&self, data: &IndiceData, problem: String) -> Error {
        Error::IndiceKey {
            layer: self.description.to_string(),
            key: self.indice_key.clone().unwrap_or_default(),
            made_by: data.made_by.to_string(),
            problem,
        }
    }

    fn other_sites(&self, x: &SparseConvTensor, side: &str, sites: &Sites) -> String {
        format!(
            "its {side} has {} sites on a {:?} grid, this layer's input {} sites on {:?}, and they are not the same",
            sites.len(),
            sites.grid().shape,
            x.len(),
            x.spatial_shape()
        )
    }
}

/// The kernel map of a layer: the one under its key if an earlier layer made it, otherwise one for these sites.
///
/// # Errors
/// [`Error::IndiceKey`](crate::Error::IndiceKey) if the key belongs to a map of another geometry or other sites.
pub(super) fn map_for(maker: &Maker, geometry: Geometry, x: &SparseConvTensor, backend: Backend) -> Result<KernelMap> {
    let Some(data) = maker.indice_key.as_deref().and_then(|key| x.find_indice(key)) else {
        return new_map(maker.layer, x, geometry, backend);
    };
    if data.map.geometry != geometry {
        return Err(maker.misuse(data, "that is another geometry; give this layer a key of its own".into()));
    }
    if !data.map.source.same(x.sites()) {
        return Err(maker.misuse(data, maker.other_sites(x, "input", &data.map.source)));
    }
    Ok(data.map.clone())
}

/// Like [`map_for`], with the pairs built.
pub(super) fn built_map(maker: &Maker, geometry: Geometry, x: &SparseConvTensor) -> Result<KernelMap> {
    let backend = x.backend()?;
    let map = map_for(maker, geometry, x, backend)?;
    backend.engine_on(x.device())?.build(&Flow::forward(&map), x.device())?;
    Ok(map)
}

/// The map for the sites of `x` and this geometry. The backend finds its output sites unless the sites remember them.
fn new_map(op: &'static str, x: &SparseConvTensor, geometry: Geometry, backend: Backend) -> Result<KernelMap> {
    let source = x.sites();
    let remembered = source.maps().get(&geometry).cloned();
    let body = match remembered {
        Some(body) => body,
        None => {
            let target = match geometry.kind {
                Kind::Submanifold => None,
                Kind::Regular | Kind::Transposed => {
                    let shape = geometry.output_shape(op, source.grid().shape)?;
                    let grid = Grid::new(op, source.grid().batch, shape)?.with_axes(source.grid().axes);
                    Some(Arc::new(backend.engine_on(x.device())?.output_sites(source, &geometry, grid, x.device())?))
                }
            };
            let body = Arc::new(MapBody { target, kept: Kept::default() });
            source.maps().entry(geometry).or_insert(body).clone()
        }
    };
    let target = body.target.as_ref().unwrap_or(source).clone();
    Ok(KernelMap { geometry, source: source.clone(), target, body })
}

/// The common body of convolution layers.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// The weight, with the layer's own axes.
    pub weight: Tensor,
    /// The weight as (out, kz, ky, kx, in).
    pub taps: Tensor,
    pub bias: Option<Tensor>,
    pub geometry: Geometry,
    pub maker: Maker,
    /// Keeps the note alive that tells the importer of checkpoints about the layer.
    pub _note: Option<Arc<LayerNote>>,
}

impl Conv {
    /// Checks the arguments and gets `weight` (out, kz, ky, kx, in), without kz for 2-D and so on, and `bias` (out,). Both are initialised
    /// as PyTorch does: uniform within ±1/√(in·kz·ky·kx).
    pub fn new<const N: usize>(
        layer: &'static str,
        kind: Kind,
        [in_channels, out_channels]: [usize; 2],
        kernel: Size<N>,
        config: ConvConfig<N>,
        vb: VarBuilder,
    ) -> Result<Self> {
        for (name, channels) in [("in_channels", in_channels), ("out_channels", out_channels)] {
            if channels == 0 {
                return Err(Error::Argument { op: layer, name, got: "0".into(), expected: "1 or more".into() });
            }
        }
        let ConvConfig { stride, padding, dilation, bias, indice_key, output_sites } = config;
        let geometry = Geometry {
            kind,
            kernel: three(kernel.0, 1),
            stride: three(stride, 1),
            padding: three(padding, 0),
            dilation: three(dilation, 1),
            output_sites,
        }
        .checked(layer)?;
        let [kz, ky, kx] = geometry.kernel;
        // The initialisation draws its numbers in f64.
        memory::elements::<f32>(layer, "the weight", &[out_channels, kz, ky, kx, in_channels], size_of::<f64>())?;
        let bound = 1.0 / ((in_channels * geometry.volume()) as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let shape = [&[out_channels], &kernel.0[..], &[in_channels]].concat();
        let weight = vb.get_with_hints(shape, "weight", init)?;
        let taps = if N == 3 { weight.clone() } else { weight.reshape((out_channels, kz, ky, kx, in_channels))? };
        let bias = if bias { Some(vb.get_with_hints(out_channels, "bias", init)?) } else { None };
        let name = vb.prefix();
        let description = format!(
            "{layer}{}({in_channels} → {out_channels}, kernel {:?}, stride {:?}, padding {:?}, dilation {:?})",
            if name.is_empty() { name } else { format!(" `{name}`") },
            &geometry.kernel[3 - N..],
            &geometry.stride[3 - N..],
            &geometry.padding[3 - N..],
            &geometry.dilation[3 - N..],
        );
        let description: Arc<str> = description.into();
        let note = LayerNote {
            description: description.clone(),
            kind,
            inverse: layer.starts_with("SparseInverseConv"),
            kernel: kernel.0.to_vec(),
            channels: [in_channels, out_channels],
            pointwise: geometry.volume() == 1 && geometry.stride == [1; 3],
        };
        let note = Some(layers::note(&weight, note));
        Ok(Self { weight, taps, bias, geometry, maker: Maker { layer, description, indice_key }, _note: note })
    }

    /// Runs the layer forwards over the map of its key or, if there is none, one for these sites and this geometry. The result has type
    /// `output`: that of `x`, or f32 for half features.
    pub fn forward(&self, x: &SparseConvTensor, output: DType) -> Result<SparseConvTensor> {
        self.forward_joined(x, None, output)
    }

    /// Like [`forward`](Self::forward), but the channels of `beside` (the same rows, more channels) follow those of `x`. The result is then
    /// f32.
    pub fn forward_joined(
        &self,
        x: &SparseConvTensor,
        beside: Option<&Tensor>,
        output: DType,
    ) -> Result<SparseConvTensor> {
        let channels = beside.map_or(Ok(0), |beside| beside.dim(1))?;
        let flow = self.flow(x, x.channels() + channels)?;
        let features = self.convolve(&flow, x, beside, output)?;
        Ok(x.next(features, &flow.map.target, self.maker.entry(&flow.map)))
    }

    /// The flow that [`forward`](Self::forward) uses for an input of `channels` channels on the sites of `x`.
    pub fn flow(&self, x: &SparseConvTensor, channels: usize) -> Result<Flow> {
        self.check_input(x, channels)?;
        Ok(Flow::forward(&map_for(&self.maker, self.geometry, x, x.backend()?)?))
    }

    /// The layer's kernel map on the sites of `x`, with its pairs built.
    pub fn kernel_map(&self, x: &SparseConvTensor) -> Result<KernelMap> {
        built_map(&self.maker, self.geometry, x)
    }

    /// Runs the layer onto the sites of `target` instead of its own output sites.
    pub fn forward_onto(&self, x: &SparseConvTensor, target: &SparseConvTensor) -> Result<SparseConvTensor> {
        self.check_input(x, x.channels())?;
        if target.batch_size() != x.batch_size() || target.ndim() != x.ndim() {
            let kind = |x: &SparseConvTensor| format!("a {}-D tensor of batch size {}", x.ndim(), x.batch_size());
            let (got, expected) = (kind(target), format!("{}, as the input", kind(x)));
            return Err(Error::Argument { op: self.maker.layer, name: "target", got, expected });
        }
        // A submanifold map is its own reverse; a map onto other sites is not.
        let kind = if self.geometry.kind == Kind::Submanifold { Kind::Regular } else { self.geometry.kind };
        let body = MapBody { target: Some(target.sites().clone()), kept: Kept::default() };
        let (source, target) = (x.sites().clone(), target.sites().clone());
        let map = KernelMap { geometry: Geometry { kind, ..self.geometry }, source, target, body: Arc::new(body) };
        let features = self.convolve(&Flow::forward(&map), x, None, x.dtype())?;
        Ok(x.moved(self.maker.layer, features, &map.target))
    }

    /// Runs the layer backwards over the map of its key: from that map's output sites to its input sites.
    pub fn invert(&self, x: &SparseConvTensor, output: DType) -> Result<SparseConvTensor> {
        let flow = self.invert_flow(x)?;
        let features = self.convolve(&flow, x, None, output)?;
        Ok(x.next(features, &flow.map.source, None))
    }

    pub fn invert_flow(&self, x: &SparseConvTensor) -> Result<Flow> {
        self.check_input(x, x.channels())?;
        self.maker.invert_flow(self.geometry.kernel, x)
    }

    fn convolve(&self, flow: &Flow, x: &SparseConvTensor, beside: Option<&Tensor>, output: DType) -> Result<Tensor> {
        let layer = Convolve { flow, weight: &self.taps, bias: self.bias.as_ref(), beside, output };
        x.backend()?.engine_on(x.device())?.convolve(&layer, x.features())
    }

    /// Gradients of the features of `x` with those beside them, added to `onto`, and of the weight, from the gradient of the result over
    /// `flow`; all in f32.
    pub fn gradients(
        &self,
        flow: &Flow,
        x: &SparseConvTensor,
        beside: Option<&Tensor>,
        grad: &Tensor,
        onto: Option<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let layer = Convolve { flow, weight: &self.taps, bias: None, beside, output: DType::F32 };
        x.backend()?.engine_on(x.device())?.convolve_gradients(&layer, x.features(), grad, onto)
    }

    fn check_input(&self, x: &SparseConvTensor, channels: usize) -> Result<()> {
        let &[_, _, _, _, in_channels] = self.taps.dims() else { unreachable!("weights have five axes") };
        self.maker.check_axes(self.weight.rank() - 2, x)?;
        if channels != in_channels {
            return Err(Error::Shape {
                op: self.maker.layer,
                what: "features",
                got: vec![x.len(), channels],
                expected: format!("(sites, {in_channels}) for {}", self.maker.description),
            });
        }
        if (x.dtype() == DType::F64) != (self.taps.dtype() == DType::F64) {
            return Err(Error::DType {
                op: self.maker.layer,
                what: "features",
                got: x.dtype(),
                expected: if x.dtype() == DType::F64 {
                    "f32, f16 or bf16, because the weights are not f64"
                } else {
                    "f64, because the weights are f64"
                },
            });
        }
        if !x.device().same_device(self.taps.device()) {
            return Err(Error::Device {
                op: self.maker.layer,
                what: "x",
                got: x.device().location(),
                other: "its weights",
                expected: self.taps.device().location(),
            });
        }
        Ok(())
    }
}

/// Writes the methods that every convolution layer has besides its constructor.
macro_rules! convolution_layer {
    ($layer:ident, $run:ident) => {
        impl<const N: usize> $layer<N> {
            /// Weights (out, kz, ky, kx, in), or (out, ky, kx, in) for a 2-D layer, and so on.
            pub fn weight(&self) -> &candle_core::Tensor {
                &self.0.weight
            }

            /// Bias (out,), if the layer has one.
            pub fn bias(&self) -> Option<&candle_core::Tensor> {
                self.0.bias.as_ref()
            }

            /// The key of the layer's kernel map, if it has one.
            pub fn indice_key(&self) -> Option<&str> {
                self.0.maker.indice_key.as_deref()
            }

            /// Kernel size (z, y, x), or for the axes that the layer has.
            pub fn kernel_size(&self) -> [usize; N] {
                std::array::from_fn(|axis| self.0.geometry.kernel[axis + 3 - N])
            }
        }

        impl<const N: usize> crate::sparse::SparseModule for $layer<N> {
            fn forward_t(
                &self,
                x: &crate::sparse::SparseConvTensor,
                _train: bool,
            ) -> crate::Result<crate::sparse::SparseConvTensor> {
                self.0.$run(x, x.dtype())
            }

            fn describe(&self) -> crate::sparse::LayerDescription {
                let bias = self.0.bias.as_ref().map_or(0, candle_core::Tensor::elem_count);
                let kind = self.0.maker.description.to_string();
                crate::sparse::LayerDescription { kind, parameters: self.0.weight.elem_count() + bias }
            }
        }
    };
}
pub(super) use convolution_layer;

/// Writes what the layers that make maps have besides: `forward_onto`, `kernel_map`, and passes inside a segment.
macro_rules! map_making_layer {
    ($layer:ident) => {
        impl<const N: usize> $layer<N> {
            /// Runs the layer onto the sites of `target`, in their order, instead of its own output sites: MinkowskiEngine's convolution on
            /// given coordinates. Sites that it does not reach get only the bias. Each call builds the kernel map again.
            ///
            /// # Errors
            /// The errors of a forward pass; or a target with another batch size or number of axes.
            ///
            /// ```
            /// use wavemesh::prelude::*;
            #[doc = concat!("use wavemesh::sparse::", stringify!($layer), ";")]
            /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
            /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
            /// let at = SparseConvTensor::from_coords(x.features().narrow(0, 0, 1)?, vec![[0, 0, 0, 1]], [1, 1, 2], 1)?;
            /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
            #[doc = concat!("let layer = ", stringify!($layer), "::<3>::new(1, 4, 3, ConvConfig::new().padding(1), vb)?;")]
            /// let y = layer.forward_onto(&x, &at)?;
            /// assert!(y.same_sites(&at) && y.channels() == 4);
            /// # Ok::<(), Error>(())
            /// ```
            pub fn forward_onto(
                &self,
                x: &crate::sparse::SparseConvTensor,
                target: &crate::sparse::SparseConvTensor,
            ) -> crate::Result<crate::sparse::SparseConvTensor> {
                self.0.forward_onto(x, target)
            }

            /// The kernel map of this layer on the sites of `x`, as a forward pass would build or find it.
            ///
            /// # Errors
            /// A kernel that does not fit the grid, or a wrong use of the layer's `indice_key`.
            ///
            /// ```
            /// use wavemesh::prelude::*;
            #[doc = concat!("use wavemesh::sparse::", stringify!($layer), ";")]
            /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
            /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
            /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
            #[doc = concat!("let layer = ", stringify!($layer), "::<3>::new(1, 4, 3, ConvConfig::new().padding(1), vb)?;")]
            /// let map = layer.kernel_map(&x)?;
            /// assert_eq!((map.kernel_volume(), map.input_coords()), (27, x.coords()));
            /// assert_eq!(map.pairs(13).len(), 2); // through the kernel's middle each site reaches itself
            /// # Ok::<(), Error>(())
            /// ```
            pub fn kernel_map(&self, x: &crate::sparse::SparseConvTensor) -> crate::Result<crate::sparse::KernelMap> {
                self.0.kernel_map(x)
            }
        }

        impl crate::sparse::SegmentConv for $layer<3> {
            fn forward_wide(
                &self,
                x: &crate::sparse::SparseConvTensor,
                beside: Option<&candle_core::Tensor>,
            ) -> crate::Result<crate::sparse::SparseConvTensor> {
                self.0.forward_joined(x, beside, candle_core::DType::F32)
            }

            fn gradients(
                &self,
                x: &crate::sparse::SparseConvTensor,
                beside: Option<&candle_core::Tensor>,
                grad: &candle_core::Tensor,
                onto: Option<candle_core::Tensor>,
            ) -> crate::Result<[candle_core::Tensor; 2]> {
                let channels = beside.map_or(Ok(0), |beside| beside.dim(1))?;
                self.0.gradients(&self.0.flow(x, x.channels() + channels)?, x, beside, grad, onto)
            }

            fn weight_and_bias(&self) -> (&candle_core::Tensor, Option<&candle_core::Tensor>) {
                (&self.0.weight, self.0.bias.as_ref())
            }
        }
    };
}
pub(super) use map_making_layer;
