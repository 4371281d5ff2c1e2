//! Cards for generation: a set of shapes, their representation, and the trained stages.

use super::{Facts, Table, picture_card};
use crate::Result;
use crate::notebook::html::{count, number};
use crate::notebook::{Axis, MeshPlot, MimeBundle, Picture, Rich, contact_sheet};
use crate::train::{Generator, Objective, Representation, ShapeDataset, Trainer};

/// How many shapes of a set are shown.
const SHOWN: usize = 10;
/// How many shapes are in a row.
const COLUMNS: usize = 5;

impl Rich for ShapeDataset {
    fn rich(&self) -> MimeBundle {
        let mut facts: Facts = vec![("shapes", count(self.len() as u64))];
        if let Some(first) = self.items().first() {
            let layout = first.coefficients.layout();
            let [x, y, z] = layout.frame().shape;
            facts.push(("grid", format!("{x}×{y}×{z}")));
            facts.push(("", format!("{}, {} levels", layout.wavelet().name(), layout.level())));
        }
        let kept: usize = self.items().iter().map(|item| item.coefficients.len()).sum();
        facts.push(("coefficients each", count((kept / self.len().max(1)) as u64)));
        if !self.skipped().is_empty() {
            facts.push(("files left out", count(self.skipped().len() as u64)));
        }
        let rows: Vec<_> = self
            .skipped()
            .iter()
            .map(|(path, reason)| {
                let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
                vec![name, reason.clone()]
            })
            .collect();
        let table = (!rows.is_empty()).then(|| Table::new(vec!["left out", "because"], rows.into_iter()));
        picture_card("ShapeDataset", &facts, table.as_ref(), Some(first_shapes(self)))
    }
}

/// The first shapes, small, with their names.
fn first_shapes(set: &ShapeDataset) -> Result<Picture> {
    let picture = |i: usize| {
        let item = &set.items()[i];
        let name = match item.family {
            Some(family) => family.name().to_owned(),
            None => item.name.rsplit(['/', '\\']).next().unwrap_or(&item.name).to_owned(),
        };
        let plot = MeshPlot::new(&set.grid(i)?.to_mesh()?).title(name).axes(false).size(130, 130);
        // Procedural shapes have z up.
        if item.family.is_some() { plot.up(Axis::Z).picture() } else { plot.picture() }
    };
    contact_sheet(&(0..set.len().min(SHOWN)).map(picture).collect::<Result<Vec<_>>>()?, COLUMNS)
}

impl Rich for Representation {
    fn rich(&self) -> MimeBundle {
        let config = self.config();
        let n = config.resolution;
        let facts: Facts = vec![
            ("grid", format!("{n}×{n}×{n}")),
            ("", format!("{}, {} stages", config.wavelet, self.stages())),
            ("shell", config.shell.map_or("all sites".into(), |shell| format!("{} sites", number(shell.into())))),
            ("distances", config.truncation.map_or("plain".into(), |t| format!("level off at {}", number(t.into())))),
        ];
        let row = |stage: usize| {
            let (grid, stats) = (self.grid_of(stage), &self.stats()[stage]);
            let (least, most) = stats.std.iter().fold((f32::INFINITY, 0f32), |(l, m), &s| (l.min(s), m.max(s)));
            vec![
                stage.to_string(),
                format!("{grid}×{grid}×{grid}"),
                Representation::channels_of(stage).to_string(),
                Representation::condition_channels_of(stage).to_string(),
                format!("{} to {}", number(least.into()), number(most.into())),
            ]
        };
        let header = vec!["stage", "grid", "channels", "told beside", "divided by"];
        let table = Table::new(header, (0..self.stages()).map(row));
        picture_card("Representation", &facts, Some(&table), None)
    }
}

impl Rich for Generator {
    fn rich(&self) -> MimeBundle {
        let config = self.representation().config();
        let parameters: usize = self.stages().iter().map(|stage| stage.network.num_parameters()).sum();
        let mut facts: Facts = vec![
            ("grid", format!("{0}×{0}×{0}", config.resolution)),
            ("stages", self.stages().len().to_string()),
            ("parameters", count(parameters as u64)),
        ];
        if !self.classes().is_empty() {
            facts.push(("classes", self.classes().join(", ")));
        }
        let row = |(i, stage): (usize, &crate::train::StageModel)| {
            let network = stage.network.config();
            vec![
                i.to_string(),
                format!("{} → {}", network.in_channels, network.out_channels),
                format!("{:?}", network.encoder_channels),
                count(stage.network.num_parameters() as u64),
                format!("{:?}", stage.diffusion.config().prediction).to_lowercase(),
            ]
        };
        let header = vec!["stage", "channels", "encoder", "parameters", "predicts"];
        let table = Table::new(header, self.stages().iter().enumerate().map(row));
        picture_card("Generator", &facts, Some(&table), None)
    }
}

impl<O: Objective> Rich for Trainer<O> {
    fn rich(&self) -> MimeBundle {
        let mut facts: Facts = vec![
            ("step", format!("{} of {}", count(self.step_count() as u64), count(self.plan().steps as u64))),
            ("parameters", count(self.num_parameters() as u64)),
        ];
        if let Some(last) = self.history().last() {
            facts.push(("loss", number(last.loss)));
        }
        if let Some(best) = self.best_validation() {
            facts.push(("best validation", number(best)));
        }
        picture_card("Trainer", &facts, None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{DiffusionConfig, GaussianDiffusion};
    use crate::train::{DatasetConfig, Family, RepresentationConfig, Split, StageModel};
    use crate::unet::{UNetConfig, WaveMeshUNet};
    use candle_core::Device;

    #[test]
    fn sets_representations_and_generators_tell_what_they_hold() {
        let config = DatasetConfig { resolution: 16, levels: 1, ..Default::default() };
        let set = ShapeDataset::procedural(&[Family::Torus, Family::Box], 3, 1, Split::Train, &config).unwrap();
        let card = set.rich();
        assert!(
            card.plain().starts_with("ShapeDataset | shapes 3 · grid 16×16×16 · bior4.4, 1 levels"),
            "{}",
            card.plain()
        );
        assert!(card.get("image/png").is_some());

        let config = RepresentationConfig { resolution: 16, levels: 1, ..Default::default() };
        let representation = Representation::fit(&config, &set.grids().unwrap()).unwrap();
        let text = representation.rich().plain().to_owned();
        assert!(text.contains("distances level off at 0.2") && text.contains("8×8×8"), "{text}");

        let [inputs, outputs] = Generator::channels_of(0, 2);
        let network = WaveMeshUNet::seeded(&UNetConfig::plain(inputs, outputs, &[4, 8]), 0, &Device::Cpu).unwrap();
        let text = network.rich().plain().to_owned();
        assert!(text.starts_with("WaveMeshUNet | parameters ") && text.contains("time_mlp.0.weight"), "{text}");
        let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu).unwrap();
        let classes = vec!["torus".to_owned(), "box".to_owned()];
        let generator = Generator::new(representation, vec![StageModel { network, diffusion }], classes).unwrap();
        let text = generator.rich().plain().to_owned();
        assert!(text.contains("classes torus, box") && text.contains(&format!("{inputs} → {outputs}")), "{text}");
    }
}
