//! What a suite receives ([`Case`]) and what it returns ([`Work`], whose result becomes an [`Answer`]).

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, WithDType};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Any error, as text for the table.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The device for the work: `WAVEMESH_DEVICE` chooses it; without the feature `cuda` it is the CPU.
pub fn device() -> Result<Device> {
    Ok(wavemesh::device::best_device()?)
}

/// One case as the Python side of the suite describes it: the operation, its parameters and its input arrays.
pub struct Case {
    pub suite: String,
    pub op: String,
    params: Value,
    inputs: HashMap<String, Tensor>,
}

impl Case {
    pub fn load(suite: String, op: String, params: Value, inputs: &Path) -> Result<Self> {
        let case = Self { suite, op, params, inputs: candle_core::safetensors::load(inputs, &device()?)? };
        #[cfg(feature = "cuda")]
        candle_core::cuda::set_gemm_reduced_precision_f32(case.option("tf32")?);
        Ok(case)
    }

    /// The parameter `name`, in any type that JSON can become: `case.param::<usize>("level")?`.
    pub fn param<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.params.get(name).ok_or_else(|| format!("{}: no parameter `{name}`", self.op))?;
        serde_json::from_value(value.clone()).map_err(|error| format!("{}: {name}: {error}", self.op).into())
    }

    /// The parameter `name`, or its type's default if the case does not have it.
    pub fn option<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T> {
        if self.params.get(name).is_some() { self.param(name) } else { Ok(T::default()) }
    }

    /// The input array `name`.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.inputs.get(name).cloned().ok_or_else(|| format!("{}: no input `{name}`", self.op).into())
    }

    /// All input arrays, for suites that look weights up by name.
    pub fn tensors(&self) -> &HashMap<String, Tensor> {
        &self.inputs
    }

    /// The values of the input array `name` in C order, converted to `T`.
    pub fn values<T: WithDType>(&self, name: &str) -> Result<Vec<T>> {
        Ok(self.tensor(name)?.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1()?)
    }

    /// The error for an operation that this suite does not know.
    pub fn unknown_op(&self) -> Error {
        format!("suite {} has no operation `{}` in Rust", self.suite, self.op).into()
    }
}

/// What is compared with the peers: arrays by name, and facts (sizes, counts) for the table.
#[derive(Default)]
pub struct Answer {
    arrays: HashMap<String, Tensor>,
    pub facts: Map<String, Value>,
}

impl Answer {
    /// Adds a tensor, under the same name as the peer's.
    pub fn tensor(mut self, name: &str, tensor: &Tensor) -> Result<Self> {
        self.arrays.insert(name.to_owned(), tensor.contiguous()?);
        Ok(self)
    }

    /// Adds values in C order.
    pub fn values<T: WithDType>(self, name: &str, values: &[T], shape: &[usize]) -> Result<Self> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?;
        self.tensor(name, &tensor)
    }

    /// Adds a number for the table, such as a size in bytes.
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Writes the arrays. Whole numbers are written as i64, so that NumPy can read all of them.
    pub fn save(&self, path: &Path) -> Result<()> {
        let readable = |tensor: &Tensor| match tensor.dtype() {
            DType::F32 | DType::F64 => Ok(tensor.clone()),
            DType::BF16 | DType::F16 => tensor.to_dtype(DType::F32),
            _ => tensor.to_dtype(DType::I64),
        };
        let arrays = self.arrays.iter().map(|(name, tensor)| {
            let tensor = tensor.to_device(&Device::Cpu)?;
            Ok((name.clone(), readable(&tensor)?))
        });
        candle_core::safetensors::save(&arrays.collect::<Result<HashMap<_, _>>>()?, path)?;
        Ok(())
    }
}

/// A prepared case. Only `run` is timed; its last result is kept for `answer`.
pub struct Work(Box<dyn Steps>);

trait Steps {
    fn run(&mut self, repeat: usize) -> Result<f64>;
    fn warm(&mut self) -> Result<()>;
    fn answer(&self) -> Result<Answer>;
}

struct Closures<Run, ToAnswer, T> {
    run: Run,
    to_answer: ToAnswer,
    last: Option<T>,
}

impl Work {
    /// `run` does the measured work and returns its result; `answer` turns the result into arrays, outside the measured time.
    pub fn new<T: 'static, E: Into<Error> + 'static>(
        run: impl FnMut() -> Result<T, E> + 'static,
        answer: impl Fn(&T) -> Result<Answer> + 'static,
    ) -> Self {
        Self(Box::new(Closures { run, to_answer: answer, last: None }))
    }

    /// Mean seconds of `repeat` runs; each ends when its device has finished. Dropping a result is not counted.
    pub fn run(&mut self, repeat: usize) -> Result<f64> {
        self.0.run(repeat)
    }

    /// Runs once and drops the result.
    pub fn warm(&mut self) -> Result<()> {
        self.0.warm()
    }

    /// The answer of the last run.
    pub fn answer(&self) -> Result<Answer> {
        self.0.answer()
    }
}

impl<T, E, Run, ToAnswer> Steps for Closures<Run, ToAnswer, T>
where
    E: Into<Error>,
    Run: FnMut() -> Result<T, E>,
    ToAnswer: Fn(&T) -> Result<Answer>,
{
    fn run(&mut self, repeat: usize) -> Result<f64> {
        let (mut seconds, device) = (0.0, device()?);
        for _ in 0..repeat {
            self.last = None;
            device.synchronize()?;
            let start = Instant::now();
            let result = black_box((self.run)().map_err(Into::into)?);
            device.synchronize()?;
            seconds += start.elapsed().as_secs_f64();
            self.last = Some(result);
        }
        Ok(seconds / repeat as f64)
    }

    fn warm(&mut self) -> Result<()> {
        self.run(1)?;
        self.last = None;
        Ok(())
    }

    fn answer(&self) -> Result<Answer> {
        (self.to_answer)(self.last.as_ref().ok_or("nothing has run yet")?)
    }
}
