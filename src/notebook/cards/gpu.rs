//! The card of a GPU: what it is, and who has its memory.

use super::{Facts, card, card_text};
use crate::device::GpuInfo;
use crate::notebook::{MimeBundle, Rich, html::bytes};

impl Rich for GpuInfo {
    fn rich(&self) -> MimeBundle {
        let facts: Facts = vec![
            ("", self.name.clone()),
            ("compute capability", self.capability.clone()),
            ("CUDA", self.cuda.clone()),
            ("tensors use", bytes(self.used)),
            ("the pool holds", bytes(self.held)),
            ("free", format!("{} of {}", bytes(self.free), bytes(self.total))),
        ];
        let title = format!("cuda:{}", self.ordinal);
        MimeBundle::text(card_text(&title, &facts)).with_html(card(&title, &facts, ""))
    }
}
