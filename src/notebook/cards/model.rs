//! The summary of a network: its layers on one input, as a table.

use super::{Facts, Table, picture_card};
use crate::notebook::html::{bytes, count};
use crate::notebook::{MimeBundle, Rich};
use crate::unet::ModelSummary;

impl Rich for ModelSummary {
    fn rich(&self) -> MimeBundle {
        let [sites, channels] = self.input;
        let facts: Facts = vec![
            ("parameters", count(self.parameters as u64)),
            ("", bytes(self.parameter_bytes as u64)),
            ("input", format!("{} sites × {channels}", count(sites as u64))),
            ("mult-adds", count(self.mult_adds() as u64)),
            ("activations", bytes(self.activation_bytes() as u64)),
        ];
        let rows = self.layers.iter().map(|layer| {
            vec![
                layer.name.clone(),
                layer.kind.clone(),
                count(layer.sites as u64),
                layer.channels.to_string(),
                count(layer.parameters as u64),
                count(layer.mult_adds as u64),
                bytes(layer.bytes as u64),
            ]
        });
        let header = vec!["layer", "type", "sites", "channels", "parameters", "mult-adds", "output"];
        picture_card("Model", &facts, Some(&Table::new(header, rows)), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unet::LayerSummary;

    #[test]
    fn every_layer_has_a_row() {
        let layer = |name: &str| LayerSummary {
            name: name.into(),
            kind: "SubMConv3d".into(),
            sites: 20,
            channels: 8,
            parameters: 1728,
            mult_adds: 5000,
            bytes: 640,
        };
        let summary = ModelSummary {
            layers: vec![layer("encoder.0"), layer("<decoder>")],
            parameters: 3456,
            parameter_bytes: 13824,
            input: [20, 1],
        };
        let bundle = summary.rich();
        assert!(
            bundle.plain().starts_with("Model | parameters 3,456 · 13.8 KB · input 20 sites × 1 · mult-adds 10,000"),
            "{}",
            bundle.plain()
        );
        assert_eq!(bundle.plain().lines().count(), 4);
        assert!(bundle.to_html().contains("&lt;decoder&gt;"));
    }
}
