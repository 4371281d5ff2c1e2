//! Any bytes, read as messages between the kernel and the process that runs cells: messages or errors, never a panic. A message that was
//! read is written and read again as the same message, and splitting the bytes at other places does not change the result.
#![no_main]

#[allow(dead_code)]
#[path = "../../kernel/runtime/frames.rs"]
mod frames;
#[allow(dead_code)]
#[path = "../../kernel/runtime/protocol.rs"]
mod protocol;

use frames::{Piece, Splitter};
use protocol::{CommEvent, Decoder, Message, Order, Report};

fn check<M: Message + Clone + PartialEq + std::fmt::Debug>(bytes: &[u8], cut: usize) {
    let whole = Decoder::default().decode::<M>(bytes);
    let mut decoder = Decoder::default();
    let (head, tail) = bytes.split_at(cut);
    assert_eq!([decoder.decode::<M>(head), decoder.decode::<M>(tail)].concat(), whole);
    let messages: Vec<M> = whole.into_iter().flatten().collect();
    let written: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
    let again: Result<Vec<M>, _> = Decoder::default().decode::<M>(&written).into_iter().collect();
    assert_eq!(again.as_ref(), Ok(&messages));
}

/// Joins neighbouring pieces of text into one piece.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.into_iter().fold(Vec::new(), |mut joined, piece| {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(text)), Piece::Text(more)) => text.extend(more),
            (_, piece) => joined.push(piece),
        }
        joined
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let cut = usize::from(cut).min(bytes.len());
    check::<Report>(bytes, cut);
    check::<Order>(bytes, cut);
    check::<CommEvent>(bytes, cut);
    let whole = joined(Splitter::new("t").split(bytes));
    let mut splitter = Splitter::new("t");
    let (head, tail) = bytes.split_at(cut);
    let parts = [splitter.split(head), splitter.split(tail)].concat();
    assert_eq!(joined(parts), whole);
});
