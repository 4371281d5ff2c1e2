//! The plot of a diffusion's noise schedule.

use super::{Facts, picture_card};
use crate::Result;
use crate::diffusion::{GaussianDiffusion, NoiseSchedule};
use crate::notebook::html::number;
use crate::notebook::{MimeBundle, Picture, Rich, contact_sheet, plot};

impl Rich for NoiseSchedule {
    fn rich(&self) -> MimeBundle {
        let betas = self.betas();
        let mut facts: Facts = vec![("timesteps", self.len().to_string())];
        if let (Some(first), Some(last), Some(end)) = (betas.first(), betas.last(), self.alphas_cumprod().last()) {
            facts.push(("β", format!("{} to {}", number((*first).into()), number((*last).into()))));
            facts.push(("last ᾱ", number((*end).into())));
        }
        picture_card("NoiseSchedule", &facts, None, (!self.is_empty()).then(|| schedule_plot(self)))
    }
}

impl Rich for GaussianDiffusion {
    fn rich(&self) -> MimeBundle {
        let config = self.config();
        let own = || "own betas".to_owned();
        let mut schedule =
            config.trained_betas.as_ref().map_or(format!("{:?}", config.schedule).to_lowercase(), |_| own());
        if config.rescale_betas_zero_snr {
            schedule.push_str(", ends in pure noise");
        }
        let facts: Facts = vec![
            ("timesteps", config.timesteps.to_string()),
            ("schedule", schedule),
            ("predicts", format!("{:?}", config.prediction).to_lowercase()),
        ];
        picture_card(
            "GaussianDiffusion",
            &facts,
            None,
            (!self.schedule().is_empty()).then(|| schedule_plot(self.schedule())),
        )
    }
}

/// Signal √ᾱ, noise √(1−ᾱ) and the ratio of their squares, over the timesteps.
fn schedule_plot(schedule: &NoiseSchedule) -> Result<Picture> {
    let steps = 0..schedule.len();
    let alphas = || schedule.alphas_cumprod().iter().map(|&alpha| f64::from(alpha));
    let weights = plot(steps.clone(), alphas().map(f64::sqrt))
        .name("signal")
        .line("noise", steps.clone(), alphas().map(|alpha| (1.0 - alpha).max(0.0).sqrt()))
        .title("signal and noise weights");
    let ratio = plot(steps.clone(), steps.map(|t| schedule.snr(t as i64))).title("signal-to-noise ratio").log_y(true);
    let drawn = [weights, ratio].map(|one| one.x_label("timestep").size(330, 266).picture());
    contact_sheet(&drawn.into_iter().collect::<Result<Vec<_>>>()?, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{DiffusionConfig, Prediction};
    use candle_core::Device;

    #[test]
    fn a_diffusion_shows_its_schedule_as_a_picture() {
        let bundle = GaussianDiffusion::new(&DiffusionConfig::default(), &Device::Cpu).unwrap().rich();
        assert!(
            bundle.plain().starts_with("GaussianDiffusion | timesteps 1000 · schedule linear"),
            "{}",
            bundle.plain()
        );
        assert!(bundle.get("image/png").is_some());
        let config = DiffusionConfig { rescale_betas_zero_snr: true, prediction: Prediction::V, ..Default::default() };
        let bundle = GaussianDiffusion::new(&config, &Device::Cpu).unwrap().rich();
        assert!(bundle.plain().contains("schedule linear, ends in pure noise"), "{}", bundle.plain());
        assert!(bundle.get("image/png").is_some());
    }
}
