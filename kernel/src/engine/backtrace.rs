//! The frames of a panic that lie in cells, from the debug information of the cells' own libraries.
//!
//! The standard library lists the libraries of a process once, at its first backtrace, so it does not know cells that are loaded later. The
//! cell runtime reports addresses instead, and this module looks them up.

use std::collections::HashMap;
use std::fmt::Write;

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, NativeEndian};
use object::{Object, ObjectSection, ObjectSymbol};
use wavemesh_cell::protocol::Frame;

/// So far before an instruction without a line one with a line is looked for, in bytes.
const NEAR: usize = 64;

/// The frames in the form of the standard library's backtraces, innermost first. Frames that cannot be read are left out.
pub fn text(frames: &[Frame]) -> String {
    let mut files: HashMap<&str, Vec<u8>> = HashMap::new();
    for Frame { library, .. } in frames {
        files.entry(library).or_insert_with(|| std::fs::read(library).unwrap_or_default());
    }
    let libraries: HashMap<&str, Library> =
        files.iter().filter_map(|(name, file)| Some((*name, Library::read(file)?))).collect();
    let mut text = String::new();
    for Frame { library, offset } in frames {
        if let Some(library) = libraries.get(library.as_str()) {
            library.tell(library.with_line(*offset), &mut text);
        }
    }
    text
}

/// The source files of the functions at an address, innermost first: those that were inlined there, then the function around them.
pub fn files(Frame { library, offset }: &Frame) -> Vec<String> {
    let file = std::fs::read(library).unwrap_or_default();
    Library::read(&file).map(|library| library.files(*offset)).unwrap_or_default()
}

/// The mangled name of the function at an address.
pub fn symbol(Frame { library, offset }: &Frame) -> Option<String> {
    let file = std::fs::read(library).ok()?;
    let file = object::File::parse(&*file).ok()?;
    symbol_at(&file, *offset).map(str::to_owned)
}

fn symbol_at<'a>(file: &object::File<'a>, offset: u64) -> Option<&'a str> {
    function_at(file, offset)?.name().ok()
}

fn function_at<'a, 'file>(file: &'file object::File<'a>, offset: u64) -> Option<object::Symbol<'a, 'file>> {
    let is_at =
        |symbol: &object::Symbol<'a, '_>| (symbol.address()..symbol.address() + symbol.size().max(1)).contains(&offset);
    file.symbols().chain(file.dynamic_symbols()).find(is_at)
}

struct Library<'a> {
    file: object::File<'a>,
    lines: Context<EndianSlice<'a, NativeEndian>>,
}

impl<'a> Library<'a> {
    fn read(bytes: &'a [u8]) -> Option<Library<'a>> {
        let file = object::File::parse(bytes).ok()?;
        let dwarf = Dwarf::load(|id| -> Result<_, addr2line::gimli::Error> {
            let section = file.section_by_name(id.name()).and_then(|section| section.data().ok());
            Ok(EndianSlice::new(section.unwrap_or_default(), NativeEndian))
        });
        Some(Library { lines: Context::from_dwarf(dwarf.ok()?).ok()?, file })
    }

    fn files(&self, offset: u64) -> Vec<String> {
        let Ok(mut frames) = self.lines.find_frames(offset).skip_all_loads() else { return Vec::new() };
        let mut files = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            files.push(frame.location.and_then(|place| place.file).unwrap_or_default().to_owned());
        }
        files
    }

    /// The nearest instruction up to this one, in the same function, that has a line. The compiler gives none to some jumps and copies, at
    /// which a signal can meet a thread.
    fn with_line(&self, offset: u64) -> u64 {
        let first = function_at(&self.file, offset).map_or(offset, |function| function.address());
        (first..=offset).rev().take(NEAR).find(|&at| self.has_line(at)).unwrap_or(offset)
    }

    /// Whether the place in the outermost function at an address is known.
    fn has_line(&self, offset: u64) -> bool {
        let Ok(mut frames) = self.lines.find_frames(offset).skip_all_loads() else { return false };
        let mut is_known = false;
        while let Ok(Some(frame)) = frames.next() {
            is_known = frame.location.is_some_and(|place| place.line.is_some() && place.column.is_some());
        }
        is_known
    }

    fn tell(&self, offset: u64, text: &mut String) {
        let Ok(mut frames) = self.lines.find_frames(offset).skip_all_loads() else { return };
        let mut frame = frames.next().ok().flatten();
        while let Some(inner) = frame {
            frame = frames.next().ok().flatten();
            // Debug information of lines only names a function without its path. The outermost function's symbol has the path.
            let symbol = if frame.is_none() { symbol_at(&self.file, offset) } else { None };
            let named = inner.function.as_ref().and_then(|function| function.raw_name().ok());
            let name = symbol.or(named.as_deref()).unwrap_or("<unknown>");
            if let Some(place) = inner.location
                && let (Some(file), Some(line), Some(column)) = (place.file, place.line, place.column)
            {
                let name = rustc_demangle::demangle(name);
                let _ = writeln!(text, "0: {name:#}\n at {file}:{line}:{column}");
            }
        }
    }
}
