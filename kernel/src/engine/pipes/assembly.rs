//! Turns the bytes of standard output and error into outputs, in order.

use serde_json::Value;
use wavemesh_cell::frames::{Piece, Splitter, end_of_run, is_end};

use super::cell::{Cell, push_text};
use super::contents::Contents;
use crate::engine::{Output, Sink};

/// Builds outputs, and holds those that have not been sent.
pub struct Assembly {
    streams: [(Splitter, Decoder); 2],
    contents: Contents,
    outputs: Vec<Output>,
    bytes: usize,
    /// Text from threads whose cell has ended, with the sink of that cell.
    late: Vec<(Sink, Output)>,
}

impl Assembly {
    /// An assembly for frames marked with the secret `token`.
    pub fn new(token: &str) -> Assembly {
        let stream = || (Splitter::new(token), Decoder::default());
        Assembly {
            streams: [stream(), stream()],
            contents: Contents::default(),
            outputs: Vec::new(),
            bytes: 0,
            late: Vec::new(),
        }
    }

    /// Takes bytes of standard output (stream 0) or error (stream 1). Returns true if they contain the end of the cell's run.
    pub fn take(&mut self, stream: usize, bytes: &[u8], cell: &mut Cell) -> bool {
        let mut ended = false;
        self.bytes += bytes.len();
        for piece in self.streams[stream].0.split(bytes) {
            match piece {
                Piece::Text(text) => {
                    let text = self.streams[stream].1.decode(&text);
                    if stream == 0 {
                        let prompt = self.contents.take(&text, &mut self.outputs);
                        cell.prompt = prompt.or(cell.prompt.take());
                    } else if !text.is_empty() {
                        cell.note_error_text(&text);
                        push_text(&mut self.outputs, text, false);
                    }
                }
                Piece::Frame(payload) if is_end(&payload) => {
                    self.contents.let_go(&mut self.outputs);
                    // The end of an earlier run may arrive late and does not count.
                    ended |= payload == end_of_run(cell.run()).as_bytes();
                }
                Piece::Frame(payload) => {
                    self.contents.let_go(&mut self.outputs);
                    self.take_frame(&payload, cell);
                }
            }
        }
        ended
    }

    fn take_frame(&mut self, payload: &[u8], cell: &mut Cell) {
        let Ok(mut message) = serde_json::from_slice::<Value>(payload) else { return };
        let mut content = message.get_mut("content").map(Value::take).unwrap_or(Value::Null);
        self.outputs.push(match message["msg_type"].as_str() {
            Some("display_data") => {
                cell.displayed.extend(content["transient"]["display_id"].as_str().map(str::to_owned));
                Output::Display(content)
            }
            Some("update_display_data") => Output::UpdateDisplay(content),
            Some("clear_output") => {
                cell.displayed.clear();
                Output::ClearOutput { wait: content["wait"].as_bool().unwrap_or(false) }
            }
            Some("comm_target") => Output::CommTarget(content["target_name"].as_str().unwrap_or_default().to_owned()),
            Some("comm_open") => Output::CommOpen { content, metadata: message["metadata"].take() },
            Some("comm_msg") => Output::CommMsg(content),
            Some("comm_close") => Output::CommClose(content),
            Some("stream") => {
                let Value::String(text) = content["text"].take() else { return };
                let output = if content["name"] == "stderr" { Output::Stderr(text) } else { Output::Stdout(text) };
                match message["run"].as_u64().and_then(|run| cell.sink_of(run)) {
                    Some(sink) => return self.late.push((sink, output)),
                    None => output,
                }
            }
            Some("execute_result") => {
                let id = content["transient"]["display_id"].as_str();
                // A value that the cell displays already is updated, not shown again.
                if !id.is_some_and(|id| cell.displayed.contains(id)) {
                    cell.result = Some(content);
                    return;
                }
                Output::UpdateDisplay(content)
            }
            _ => return,
        });
    }

    /// Adds text of the kernel's own to standard error.
    pub fn push_error(&mut self, text: String) {
        push_text(&mut self.outputs, text, false);
    }

    /// Releases held text, because nothing more comes for now: it was not the start of a marker after all.
    pub fn let_go(&mut self) {
        self.contents.let_go(&mut self.outputs);
    }

    /// Whether outputs wait to be sent, or text may still become a marker.
    pub fn is_waiting(&self) -> bool {
        self.has_outputs() || self.contents.is_holding()
    }

    /// Whether outputs wait to be sent.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty() || !self.late.is_empty()
    }

    /// How many bytes the waiting outputs came from.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends the waiting outputs: those of earlier cells to their sinks, the others to `sink`.
    pub fn send(&mut self, sink: Option<&Sink>) {
        self.bytes = 0;
        for (sink, output) in self.late.drain(..) {
            sink(output);
        }
        for output in self.outputs.drain(..) {
            if let Some(sink) = sink {
                sink(output);
            }
        }
    }
}

/// Decodes bytes into text; an incomplete character waits for its other bytes.
#[derive(Default)]
struct Decoder {
    carry: Vec<u8>,
}

impl Decoder {
    /// The text that is complete so far.
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.carry.extend_from_slice(bytes);
        let open = match self.carry.utf8_chunks().last() {
            Some(last) if is_open(last.invalid()) => last.invalid().len(),
            _ => 0,
        };
        let complete = self.carry.len() - open;
        let text = String::from_utf8_lossy(&self.carry[..complete]).into_owned();
        self.carry.drain(..complete);
        text
    }
}

/// Whether these bytes may become a character when more follow.
fn is_open(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use wavemesh_cell::frames::frame;

    use super::*;

    /// A cell in run 5, and the outputs that it has sent.
    fn running() -> (Cell, Arc<Mutex<Vec<String>>>) {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let telling = Arc::clone(&told);
        let mut cell = Cell::default();
        cell.begin(Arc::new(move |output| telling.lock().unwrap().push(format!("{output:?}"))));
        cell.begin_run(5);
        (cell, told)
    }

    fn sent(chunks: &[(usize, &[u8])]) -> (Vec<String>, Cell, Vec<bool>) {
        let (mut cell, told) = running();
        let mut assembly = Assembly::new("t");
        let ended = chunks.iter().map(|(stream, bytes)| assembly.take(*stream, bytes, &mut cell)).collect();
        assembly.let_go();
        assembly.send(cell.sink.clone().as_ref());
        assert!(!assembly.is_waiting());
        let told = told.lock().unwrap().clone();
        (told, cell, ended)
    }

    #[test]
    fn text_is_joined_and_displays_keep_their_place_in_it() {
        let display = frame("t", r#"{"msg_type":"display_data","content":{"data":{}}}"#);
        let chunks = [(0, "a".as_bytes()), (0, b"b\n"), (0, display.as_bytes()), (1, b"err"), (0, b"c")];
        let (told, ..) = sent(&chunks);
        let display = r#"Display(Object {"data": Object {}})"#;
        assert_eq!(told, [r#"Stdout("ab\n")"#, display, r#"Stderr("err")"#, r#"Stdout("c")"#]);
    }

    #[test]
    fn characters_that_are_cut_are_joined_again_and_bad_bytes_are_replaced() {
        let crab = "🦀".as_bytes();
        let (told, ..) = sent(&[(0, &crab[..1]), (0, &crab[1..3]), (0, &crab[3..]), (0, b"a\xffb")]);
        assert_eq!(told, ["Stdout(\"🦀a\u{fffd}b\")"]);
    }

    #[test]
    fn the_end_of_this_run_is_told_from_those_of_others() {
        let end = |run: u64| frame("t", &end_of_run(run));
        let (told, _, ended) = sent(&[(0, end(4).as_bytes()), (0, end(5).as_bytes()), (1, end(5).as_bytes())]);
        assert_eq!((told.len(), ended), (0, vec![false, true, true]));
    }

    #[test]
    fn a_value_that_is_displayed_already_updates_its_display() {
        let shown = |kind: &str| {
            frame("t", &format!(r#"{{"msg_type":"{kind}","content":{{"transient":{{"display_id":"p"}}}}}}"#))
        };
        let (told, cell, _) = sent(&[(0, shown("display_data").as_bytes()), (0, shown("execute_result").as_bytes())]);
        assert!(told.len() == 2 && told[1].starts_with("UpdateDisplay") && cell.result.is_none(), "{told:?}");
        let (told, cell, _) = sent(&[(0, shown("execute_result").as_bytes())]);
        assert!(told.is_empty() && cell.result.is_some());
    }

    #[test]
    fn text_of_a_thread_goes_to_the_cell_that_started_it() {
        let late = frame("t", r#"{"msg_type":"stream","run":5,"content":{"name":"stderr","text":"late"}}"#);
        let (mut cell, told) = running();
        cell.begin(Arc::new(|output| panic!("{output:?} belongs to the cell before")));
        cell.begin_run(6);
        let mut assembly = Assembly::new("t");
        assembly.take(0, late.as_bytes(), &mut cell);
        assembly.send(cell.sink.clone().as_ref());
        assert_eq!(*told.lock().unwrap(), [r#"Stderr("late")"#]);
    }

    #[test]
    fn an_evcxr_prompt_is_noted() {
        let (told, cell, _) = sent(&[(0, b"EVCXR_INPUT_REQUEST:Name?\n")]);
        assert!(told.is_empty());
        assert_eq!(cell.prompt.map(|prompt| prompt.text).as_deref(), Some("Name?"));
    }
}
