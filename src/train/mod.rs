//! From shapes to a generator: data, training loop, exponential moving average, checkpoints, and generation.
//!
//! [`ShapeDataset`] encodes shapes once. A [`Representation`] writes each shape in stages whose sites need not be given. A [`Trainer`]
//! trains a network on one stage ([`StageData`]). A [`Generator`] runs all stages and returns shapes. [`SetComparison`] measures how good
//! they are. The same [`Trainer`] trains any other network by its loss ([`Trainer::fit`]).

mod cache;
mod checkpoint;
mod clock;
mod config;
mod contexts;
mod data;
mod dataset;
mod denoising;
mod denoising_trainer;
mod ema;
mod families;
mod fit;
mod fit_config;
mod generator;
mod grad_scaler;
mod in_place;
mod initialize;
mod log;
mod nearest;
mod objective;
mod optimizer;
mod rate;
mod record;
mod representation;
mod set_metrics;
mod topology;
mod trainer;

pub use checkpoint::checkpoints;
pub use config::TrainConfig;
pub use contexts::{ContextData, ShapeViews};
pub use data::{Conditioned, StageData, TrainingBatch, TrainingData};
pub use dataset::{Augmentation, DatasetConfig, ShapeDataset, ShapeItem, Split};
pub use denoising::Denoising;
pub use ema::Ema;
pub use families::{Family, ProceduralShape};
pub use fit::{LossFn, fit};
pub use fit_config::FitConfig;
pub use generator::{GenerateOptions, Generator, StageModel};
pub use grad_scaler::{GradScaler, LossScale};
pub use initialize::{Initialization, seeded_builder};
pub use nearest::nearest_shapes;
pub use objective::Objective;
pub use optimizer::{AdamW, AdamWConfig, learning_rate};
pub use rate::LearningRate;
pub use record::StepRecord;
pub use representation::{ChannelStats, Representation, RepresentationConfig, StageCode, stage_batch};
pub use set_metrics::{SetComparison, chamfer_matrix};
pub use topology::Topology;
pub use trainer::Trainer;
