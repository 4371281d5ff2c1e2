//! Takes a cell apart into commands and Rust.
//!
//! A command has a line of its own, anywhere a statement may begin. But `!` may also begin Rust (`!ready`). At the top of a cell it is a
//! shell command; below Rust it is one too, unless a call, a macro, or a name that the cell or the notebook knows follows.

use std::ops::Range;

use super::delimiters::Delimiters;
use super::table::{self, Action, Command};

/// A line of a cell that is not Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// `:dep`, `!`, `%time`, …
    pub name: String,
    pub arguments: String,
    /// Counted from 1.
    pub line: usize,
}

impl CommandLine {
    /// The command, if there is one of this name.
    pub fn command(&self) -> Option<&'static Command> {
        table::find(&self.name)
    }

    /// The action of this command, if it exists.
    pub fn action(&self) -> Option<Action> {
        self.command().map(|command| command.action)
    }

    /// Whether the next line belongs to the command too: the line ends with a backslash, or the brackets of a `:dep` are open.
    pub fn goes_on(&self) -> bool {
        let is_open = || !Delimiters::of(&self.arguments).open.is_empty();
        self.arguments.ends_with('\\') || self.action() == Some(Action::Dependency) && is_open()
    }

    /// Adds the next line. A shell sees the backslash itself; for other commands the two lines are one.
    fn add(&mut self, line: &str) {
        let is_shell = self.action() == Some(Action::Shell);
        match self.arguments.strip_suffix('\\').filter(|_| !is_shell) {
            Some(begun) => self.arguments = format!("{} {line}", begun.trim_end()).trim().to_owned(),
            None => self.arguments = format!("{}\n{line}", self.arguments),
        }
    }

    fn of(text: &str, line: usize) -> CommandLine {
        let (name, arguments) = match text.strip_prefix('!') {
            Some(command) => ("!", command),
            None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
        };
        CommandLine { name: name.to_owned(), arguments: arguments.trim().to_owned(), line }
    }
}

/// A piece of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Command(CommandLine),
    /// Rust, at these bytes.
    Rust {
        range: Range<usize>,
        timed: Timed,
    },
}

/// Whether the line of a piece of Rust also times it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timed {
    #[default]
    No,
    /// It follows `%time`.
    Once,
    /// It follows `%timeit`.
    Often,
}

/// The parts of a cell, in order, without blank ones. `knows` tells whether the notebook has a variable of a name.
pub fn parts(source: &str, knows: &dyn Fn(&str) -> bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rust = 0..0;
    let mut timed = Timed::No;
    for (index, line) in source.split_inclusive('\n').enumerate() {
        let start = rust.end;
        let (end, text) = (start + line.len(), line.trim());
        if let Some(Part::Command(command)) = parts.last_mut().filter(|_| rust.is_empty())
            && command.goes_on()
        {
            command.add(text);
            rust = end..end;
            continue;
        }
        let code = &source[rust.start..start];
        if timed != Timed::No && !is_continued(code, text) {
            push_rust(&mut parts, source, rust.clone(), timed);
            (rust, timed) = (start..start, Timed::No);
        }
        let code = &source[rust.start..start];
        if is_command(text, code, &parts, knows) && Delimiters::of(code).ends_statement(code) {
            let command = CommandLine::of(text, index + 1);
            push_rust(&mut parts, source, rust.clone(), Timed::No);
            let timing = match command.action() {
                Some(Action::Time) => Timed::Once,
                Some(Action::TimeOften) => Timed::Often,
                _ => Timed::No,
            };
            if timing != Timed::No && !command.arguments.is_empty() {
                let arguments = start + line.find(command.arguments.as_str()).unwrap_or(line.len());
                (rust, timed) = (arguments..end, timing);
            } else {
                parts.push(Part::Command(command));
                rust = end..end;
            }
        } else {
            rust.end = end;
        }
    }
    push_rust(&mut parts, source, rust, timed);
    parts
}

fn push_rust(parts: &mut Vec<Part>, source: &str, range: Range<usize>, timed: Timed) {
    // Comments alone need no build.
    let code = Delimiters::of(&source[range.clone()]);
    if code.end > 0 || !code.is_closed() {
        parts.push(Part::Rust { range, timed });
    }
}

/// Whether the statement of `code` continues on the line `next`.
fn is_continued(code: &str, next: &str) -> bool {
    !Delimiters::of(code).is_closed() || next.starts_with('.')
}

/// Whether a line is a command, given that a statement may begin there. `code` is the Rust above it, up to the last command.
fn is_command(text: &str, code: &str, parts: &[Part], knows: &dyn Fn(&str) -> bool) -> bool {
    let mut chars = text.chars();
    match chars.next() {
        Some(':') => chars.next().is_some_and(|next| next.is_ascii_alphabetic() || next == '?'),
        Some('%') => chars.next().is_some_and(|next| next.is_ascii_alphabetic() || next == '%'),
        Some('!') => {
            let below_rust = !code.trim().is_empty() || parts.iter().any(|part| matches!(part, Part::Rust { .. }));
            let known = |word: &str| below_rust && (words(code).any(|other| other == word) || knows(word));
            !is_negation(chars.as_str(), &known)
        }
        _ => false,
    }
}

/// Whether what follows a `!` is Rust.
fn is_negation(rest: &str, known: &dyn Fn(&str) -> bool) -> bool {
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    if word.is_empty() {
        return rest.starts_with('(');
    }
    after.starts_with('(') || after.starts_with("!(") || known(word)
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The Rust of a cell. Spaces replace everything else, so that every byte keeps its place.
pub fn rust_of(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    for part in parts(source, &|_| false) {
        if let Part::Rust { range, .. } = part {
            let done = text.len();
            push_blank(&mut text, &source[done..range.start]);
            text.push_str(&source[range]);
        }
    }
    let done = text.len();
    push_blank(&mut text, &source[done..]);
    text
}

fn push_blank(text: &mut String, of: &str) {
    text.extend(of.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
}

/// One piece of a cell. Spaces replace everything before it, so that every byte keeps its place.
pub fn only(source: &str, range: Range<usize>) -> String {
    let mut text = String::with_capacity(source.len());
    push_blank(&mut text, &source[..range.start]);
    text.push_str(&source[range]);
    text
}

/// Whether the whole cell is for another kernel, like the set-up cell at the start of a notebook.
pub fn is_nothing(source: &str) -> bool {
    let parts = parts(source, &|_| false);
    let nothing = |part: &Part| matches!(part, Part::Command(command) if command.action() == Some(Action::Nothing));
    !parts.is_empty() && parts.iter().all(nothing)
}

/// The path that a cell `?path` asks about, and whether it asks for more (`??path`). Rust code never begins with a question mark.
pub fn question(code: &str) -> Option<(&str, bool)> {
    let asked = code.trim().strip_prefix('?')?;
    let (name, more) = asked.strip_prefix('?').map_or((asked, false), |name| (name, true));
    let name = name.trim();
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '!');
    (!name.is_empty() && name.chars().all(is_path)).then_some((name, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts as text: commands in brackets, `time` before a line that is timed.
    fn told(source: &str) -> Vec<String> {
        let tell = |part| match part {
            Part::Command(CommandLine { name, arguments, line }) => format!("[{name}|{arguments}|{line}]"),
            Part::Rust { range, timed: Timed::No } => source[range].trim().to_owned(),
            Part::Rust { range, timed: Timed::Once } => format!("time {}", source[range].trim()),
            Part::Rust { range, timed: Timed::Often } => format!("timeit {}", source[range].trim()),
        };
        parts(source, &|name| name == "stored").into_iter().map(tell).collect()
    }

    #[test]
    fn commands_stand_wherever_a_statement_may_begin() {
        for (source, expected) in [
            (":dep rand\nlet x = 1;\nx", vec!["[:dep|rand|1]", "let x = 1;\nx"]),
            ("let x = 1;\n!echo {x}\nx", vec!["let x = 1;", "[!|echo {x}|2]", "x"]),
            ("fn f() {}\n:vars", vec!["fn f() {}", "[:vars||2]"]),
            ("!./run.sh", vec!["[!|./run.sh|1]"]),
            ("  ! ls 'a", vec!["[!|ls 'a|1]"]),
            (":?", vec!["[:?||1]"]),
            ("%%time\n1", vec!["[%%time||1]", "1"]),
            ("// first\n!ls\n// last", vec!["[!|ls|2]"]),
            (
                ":dep a = {\n  features = [\n    \"x\",\n  ] }\nlet x = 1;",
                vec!["[:dep|a = {\nfeatures = [\n\"x\",\n] }|1]", "let x = 1;"],
            ),
            (":dep a = {\n:vars", vec!["[:dep|a = {\n:vars|1]"]),
            ("!ls \\\n  -l\n1", vec!["[!|ls \\\n-l|1]", "1"]),
            ("%load_ext {a \\\n    or b}\n1", vec!["[%load_ext|{a or b}|1]", "1"]),
            (":env \\\nA=b", vec!["[:env|A=b|1]"]),
            (":vars \\", vec!["[:vars|\\|1]"]),
        ] {
            assert_eq!(told(source), expected, "{source}");
        }
    }

    #[test]
    fn rust_that_looks_like_a_command_is_rust() {
        for source in [
            "let done = 1 == 2;\n!done",
            "let a = 1;\n!stored",
            "let a = 1;\n!matches!(a, 2)",
            "!(1 == 2)",
            "!is_ready()",
            "let s = \"\n!ls\n:vars\";",
            "let y = 7\n% 4;",
            "let z\n:u8 = 1;",
            "foo(\n!true,\n)",
            "if a\n!= b {}",
            "::std::mem::drop(1)",
            "/*\n!ls\n*/ 1",
            "#[derive(Clone)]\nstruct A;",
        ] {
            assert_eq!(told(source), [source], "{source}");
        }
    }

    #[test]
    fn time_takes_the_statement_behind_it() {
        assert_eq!(told("%time (0..9).sum::<u64>()"), ["time (0..9).sum::<u64>()"]);
        let source = "let a = 1;\n%time let b = [\n    a,\n]\n    .len();\nb";
        assert_eq!(told(source), ["let a = 1;", "time let b = [\n    a,\n]\n    .len();", "b"]);
        assert_eq!(told("%time\n1"), ["[%time||1]", "1"]);
        assert_eq!(told("%time 1\n%time 2"), ["time 1", "time 2"]);
        assert_eq!(told("%timeit f(\n1)\n2"), ["timeit f(\n1)", "2"]);
    }

    #[test]
    fn the_rust_of_a_cell_keeps_its_place() {
        let source = ":dep größe\nlet x = 1;\n!ls\n%time x";
        let rust = rust_of(source);
        assert_eq!(rust.len(), source.len());
        assert_eq!(rust.lines().map(str::trim).collect::<Vec<_>>(), ["", "let x = 1;", "", "x"]);
        assert_eq!(rust.find("let"), source.find("let"));
    }

    #[test]
    fn a_set_up_cell_is_nothing_and_what_follows_it_in_one_cell_is_not() {
        let setup = "%load_ext {get_ipython().run_line_magic(\"pip\", \"install\") or \"wavemesh_kernel\"}";
        assert!(is_nothing(setup));
        assert!(!is_nothing(&format!("{setup}\n1 + 1")) && !is_nothing("") && !is_nothing(":vars"));
        assert_eq!(told(&format!("{setup}\n1 + 1"))[1], "1 + 1");
        assert_eq!(only("a;\nb", 3..4), "  \nb");
    }

    #[test]
    fn a_question_names_a_path() {
        assert_eq!(question("?String::from"), Some(("String::from", false)));
        assert_eq!(question(" ??println!\n"), Some(("println!", true)));
        assert_eq!((question("?"), question("? a b"), question("x?")), (None, None, None));
    }
}
