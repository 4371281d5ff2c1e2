//! The plot of a diffusion's noise schedule.

use plotters::prelude::*;

use super::{Facts, picture_card};
use crate::Result;
use crate::diffusion::{GaussianDiffusion, NoiseSchedule};
use crate::notebook::draw::{ChartAxis, figure};
use crate::notebook::html::number;
use crate::notebook::{MimeBundle, Picture, Rich};

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
        let facts: Facts = vec![
            ("timesteps", config.timesteps.to_string()),
            ("schedule", format!("{:?}", config.schedule).to_lowercase()),
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

/// Signal √ᾱ, noise √(1−ᾱ) and the logarithm of their ratio, over the timesteps.
fn schedule_plot(schedule: &NoiseSchedule) -> Result<Picture> {
    let last = (schedule.len() - 1) as f64;
    let at = |f: fn(f64) -> f64| -> Vec<(f64, f64)> {
        schedule.alphas_cumprod().iter().enumerate().map(|(t, &a)| (t as f64, f(f64::from(a)))).collect()
    };
    let curves = [
        ("signal", at(f64::sqrt), RGBColor(0, 114, 178)),
        ("noise", at(|a| (1.0 - a).max(0.0).sqrt()), RGBColor(213, 94, 0)),
    ];
    let ratio: Vec<(f64, f64)> = (0..schedule.len())
        .map(|t| (t as f64, schedule.snr(t as i64).log10()))
        .filter(|(_, v)| v.is_finite())
        .collect();
    let (low, high) = ratio.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), (_, v)| (l.min(*v), h.max(*v)));
    let (low, high) = if low < high { (low, high) } else { (-1.0, 1.0) };
    let steps = || ChartAxis::linear(0.0..last.max(1.0), 5);
    let drawn = figure((640, 266), |root| {
        root.fill(&WHITE)?;
        let (left, right) = root.split_horizontally(330);
        let mut chart = ChartBuilder::on(&left)
            .margin(8)
            .caption("signal and noise weights", ("sans-serif", 14))
            .x_label_area_size(40)
            .y_label_area_size(36)
            .build_cartesian_2d(steps(), ChartAxis::linear(0.0..1.02, 5))?;
        let light = RGBColor(200, 204, 210);
        chart
            .configure_mesh()
            .x_desc("timestep")
            .light_line_style(TRANSPARENT)
            .bold_line_style(light)
            .label_style(("sans-serif", 12))
            .draw()?;
        for (name, points, color) in curves {
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.8))
            .border_style(light)
            .position(SeriesLabelPosition::Coordinate(50, 134))
            .draw()?;
        let mut chart = ChartBuilder::on(&right)
            .margin(8)
            .caption("log10 signal-to-noise ratio", ("sans-serif", 14))
            .x_label_area_size(40)
            .y_label_area_size(36)
            .build_cartesian_2d(steps(), ChartAxis::linear(low..high, 5))?;
        chart
            .configure_mesh()
            .x_desc("timestep")
            .light_line_style(TRANSPARENT)
            .bold_line_style(light)
            .label_style(("sans-serif", 12))
            .draw()?;
        chart.draw_series(LineSeries::new(ratio, RGBColor(0, 158, 115).stroke_width(2)))?;
        Ok(())
    })?;
    drawn.into_picture()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::DiffusionConfig;
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
    }
}
