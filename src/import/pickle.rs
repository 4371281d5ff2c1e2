//! Python's pickle format, as far as files of weights use it: a reader that builds plain values and runs no code.
//!
//! Classes and functions stay names, and a call stays a [`Node::Object`] with its arguments, so a file cannot make this program do
//! anything. Protocols 0 to 5 are read, without the instructions that only a cooperating program could send (extension registries,
//! out-of-band buffers).

use std::collections::HashMap;

/// A value's place in [`Values`].
pub(super) type Id = usize;

/// One value. Lists and dictionaries hold places, so a value may be inside several others, or inside itself.
#[derive(Clone, Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    /// A number with a fraction, or bytes: these never tell where a tensor is.
    Other,
    /// A list, tuple or set.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Global(String, String),
    /// The object that a call of `callable` would have made, with what was put into it afterwards.
    Object {
        callable: Id,
        arguments: Id,
        items: Vec<(Id, Id)>,
        state: Option<Id>,
    },
    /// A value that the program stores outside the pickle (PyTorch's storages).
    Persistent(Id),
}

/// All values of one or more pickles.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Node>);

impl Values {
    pub fn get(&self, id: Id) -> &Node {
        &self.0[id]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, node: Node) -> Id {
        self.0.push(node);
        self.0.len() - 1
    }

    /// The elements of a list or tuple.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        match *self.get(id) {
            Node::Int(value) => Some(value),
            Node::Bool(value) => Some(i64::from(value)),
            _ => None,
        }
    }

    /// A class or function as `module.name`.
    pub fn global(&self, id: Id) -> Option<String> {
        match self.get(id) {
            Node::Global(module, name) => Some(format!("{module}.{name}")),
            _ => None,
        }
    }

    /// Reads one pickle from the start of `bytes`. Returns its value and the bytes after it.
    ///
    /// # Errors
    /// A text that says what is wrong with the pickle.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(Id, &'a [u8]), String> {
        let mut machine =
            Machine { values: self, rest: bytes, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        let id = machine.run()?;
        Ok((id, machine.rest))
    }
}

struct Machine<'a, 'v> {
    values: &'v mut Values,
    rest: &'a [u8],
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a, '_> {
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("the pickle ends in the middle of a value")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn length(&mut self, bytes: usize) -> Step<usize> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|error| error.to_string())
    }

    fn line(&mut self) -> Step<&'a str> {
        let end = self.rest.iter().position(|&b| b == b'\n').ok_or("a line of the pickle does not end")?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|error| error.to_string())
    }

    fn text(&mut self, length: usize) -> Step<String> {
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn push(&mut self, node: Node) {
        let id = self.values.add(node);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the pickle takes a value from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "the pickle takes a value from an empty stack".into())
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "the pickle names a value of an empty stack".into())
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("the pickle goes back to a mark that it did not set")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, at: usize) -> Step<()> {
        self.memo.insert(at, self.top()?);
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Step<()> {
        let id = *self.memo.get(&at).ok_or(format!("the pickle has no value number {at}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn set_items(&mut self, into: Id, flat: &[Id]) -> Step<()> {
        let pairs = flat.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match &mut self.values.0[into] {
            Node::Dict(items) | Node::Object { items, .. } => items.extend(pairs),
            _ => return Err("the pickle sets items of a value that has none".into()),
        }
        Ok(())
    }

    fn append(&mut self, into: Id, more: &[Id]) -> Step<()> {
        match &mut self.values.0[into] {
            Node::Sequence(items) => items.extend(more),
            // A custom list or deque class: its elements are not needed here.
            Node::Object { .. } => {}
            _ => return Err("the pickle appends to a value that is not a list".into()),
        }
        Ok(())
    }

    fn object(&mut self, callable: Id, arguments: Id) {
        self.push(Node::Object { callable, arguments, items: Vec::new(), state: None });
    }

    fn long(&mut self, length: usize) -> Step<()> {
        let bytes = self.take(length)?;
        // Longer numbers (a magic number, a random state) are not sizes: their lowest 63 bits distinguish them.
        let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [sign; 8];
        let kept = length.min(8);
        wide[..kept].copy_from_slice(&bytes[..kept]);
        self.push(Node::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn run(&mut self) -> Step<Id> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                0x80 => drop(self.byte()?),
                0x95 => drop(self.array::<8>()?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => self.stack.push(self.top()?),
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'I' => {
                    let line = self.line()?;
                    self.push(match line {
                        "00" => Node::Bool(false),
                        "01" => Node::Bool(true),
                        _ => Node::Int(line.trim().parse().map_err(|_| format!("`{line}` is not an integer"))?),
                    });
                }
                b'L' => {
                    let line = self.line()?;
                    let value = line.trim().trim_end_matches('L');
                    self.push(value.parse().map_or_else(|_| Node::Text(value.into()), Node::Int));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Node::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Node::Int(value.into()));
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Node::Int(value.into()));
                }
                0x8a => {
                    let length = self.length(1)?;
                    self.long(length)?;
                }
                0x8b => {
                    let length = self.length(4)?;
                    self.long(length)?;
                }
                b'F' => {
                    self.line()?;
                    self.push(Node::Other);
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Node::Other);
                }
                code @ (b'X' | b'T' | b'U' | 0x8c | 0x8d) => {
                    let width = match code {
                        b'X' | b'T' => 4,
                        0x8d => 8,
                        _ => 1,
                    };
                    let length = self.length(width)?;
                    let text = self.text(length)?;
                    self.push(Node::Text(text));
                }
                code @ (b'B' | b'C' | 0x8e | 0x96) => {
                    let width = match code {
                        b'B' => 4,
                        b'C' => 1,
                        _ => 8,
                    };
                    let length = self.length(width)?;
                    self.take(length)?;
                    self.push(Node::Other);
                }
                b'V' | b'S' => {
                    let text = self.line()?.trim_matches(['\'', '"']).to_string();
                    self.push(Node::Text(text));
                }
                b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new())),
                b'}' => self.push(Node::Dict(Vec::new())),
                b't' | b'l' | 0x91 => {
                    let items = self.since_mark()?;
                    self.push(Node::Sequence(items));
                }
                code @ 0x85..=0x87 => {
                    let mut items: Vec<Id> = (0x85..=code).map(|_| self.pop()).collect::<Step<_>>()?;
                    items.reverse();
                    self.push(Node::Sequence(items));
                }
                b'd' => {
                    let items = self.since_mark()?;
                    self.push(Node::Dict(Vec::new()));
                    self.set_items(self.top()?, &items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(self.top()?, &[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set_items(self.top()?, &items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(self.top()?, &[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.since_mark()?;
                    self.append(self.top()?, &items)?;
                }
                b'p' => {
                    let at = self.line()?.parse().map_err(|_| "the number of a remembered value is not a number")?;
                    self.remember(at)?;
                }
                b'q' => {
                    let at = self.length(1)?;
                    self.remember(at)?;
                }
                b'r' => {
                    let at = self.length(4)?;
                    self.remember(at)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'g' => {
                    let at = self.line()?.parse().map_err(|_| "the number of a remembered value is not a number")?;
                    self.recall(at)?;
                }
                b'h' => {
                    let at = self.length(1)?;
                    self.recall(at)?;
                }
                b'j' => {
                    let at = self.length(4)?;
                    self.recall(at)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?.to_string(), self.line()?.to_string());
                    self.push(Node::Global(module, name));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let text = |id| self.values.text(id).map(str::to_string).ok_or("a class without a name");
                    let (module, name) = (text(module)?, text(name)?);
                    self.push(Node::Global(module, name));
                }
                b'R' | 0x81 => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    self.object(callable, arguments);
                }
                0x92 => {
                    let (_keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                    self.object(callable, arguments);
                }
                b'b' => {
                    let value = self.pop()?;
                    let top = self.top()?;
                    if let Node::Object { state, .. } = &mut self.values.0[top] {
                        *state = Some(value);
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Node::Persistent(id));
                }
                b'P' => {
                    let text = self.line()?.to_string();
                    let id = self.values.add(Node::Text(text));
                    self.push(Node::Persistent(id));
                }
                code => {
                    return Err(format!(
                        "the pickle has an instruction (0x{code:02x}) that files of weights do not use"
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, String> {
        let mut values = Values::default();
        let (id, rest) = values.read(bytes)?;
        assert!(rest.is_empty());
        Ok(shown(&values, id))
    }

    fn shown(values: &Values, id: Id) -> String {
        let list = |ids: &[Id]| ids.iter().map(|&id| shown(values, id)).collect::<Vec<_>>().join(" ");
        match values.get(id) {
            Node::Sequence(items) => format!("[{}]", list(items)),
            Node::Dict(items) => {
                items.iter().map(|&(k, v)| format!("{}={};", shown(values, k), shown(values, v))).collect()
            }
            Node::Object { callable, arguments, items, .. } => {
                let items: String =
                    items.iter().map(|&(k, v)| format!("{}={};", shown(values, k), shown(values, v))).collect();
                format!("{}({}){items}", shown(values, *callable), shown(values, *arguments))
            }
            Node::Global(module, name) => format!("{module}.{name}"),
            Node::Text(text) => text.clone(),
            Node::Int(value) => value.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn values_are_read_as_python_wrote_them() {
        // pickle.dumps({"a": [1, -2, 300], "b": (True, None, 1.5)}, 2)
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01eX\x01\x00\x00\x00bq\x03\x88NG?\xf8\x00\x00\x00\x00\x00\x00\x87q\x04u.";
        assert_eq!(read(two).unwrap(), "a=[1 -2 300];b=[Bool(true) None Other];");
        // pickle.dumps(OrderedDict(a=1), 2): a call, filled afterwards
        let ordered = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00aq\x02K\x01s.";
        assert_eq!(read(ordered).unwrap(), "collections.OrderedDict([])a=1;");
    }

    #[test]
    fn what_is_no_pickle_is_an_error_and_no_panic() {
        for bad in [
            &b""[..],
            b"\x80",
            b"R.",
            b"u.",
            b"(",
            b"X\xff\xff\xff\xff",
            b"h\x05.",
            b"\x87.",
            b"K\x01K\x02s.",
            b"(0.",
            b"\xfe.",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
