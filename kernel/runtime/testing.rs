//! Runs the tests of a notebook one after the other, with a report like cargo's, and handles the code that a `main` returns. The kernel
//! writes calls to this module.

use std::any::Any;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::output::print_for;
use crate::protocol::{Panic, Place};
use crate::stop::Stopped;

/// A run of some tests.
pub struct Tests {
    start: Instant,
    passed: usize,
    ignored: usize,
    /// The name of each failed test, and what went wrong.
    failed: Vec<(String, String)>,
}

/// The error that some tests failed.
#[derive(Debug)]
pub struct TestsFailed(String);

impl Display for TestsFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TestsFailed {}

/// The error that `main` returned a failure code.
#[derive(Debug)]
pub struct ExitFailure(std::process::ExitCode);

impl Display for ExitFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "`main` returned {:?}", self.0)
    }
}

impl std::error::Error for ExitFailure {}

/// Turns the code that `main` returned into an error if it is a failure.
pub fn exited(code: std::process::ExitCode) -> Result<(), ExitFailure> {
    if code == std::process::ExitCode::SUCCESS { Ok(()) } else { Err(ExitFailure(code)) }
}

/// What a test may return.
pub trait Ended {
    /// The error text if the test failed.
    fn ended(self) -> Result<(), String>;
}

impl Ended for () {
    fn ended(self) -> Result<(), String> {
        Ok(())
    }
}

impl<T: Ended, E: Debug> Ended for Result<T, E> {
    fn ended(self) -> Result<(), String> {
        self.map_err(|error| format!("Error: {error:?}"))?.ended()
    }
}

impl Ended for std::process::ExitCode {
    fn ended(self) -> Result<(), String> {
        exited(self).map_err(|_| format!("it returned {self:?}"))
    }
}

/// The result of a test that did not panic.
pub fn ended(returned: impl Ended) -> Result<(), String> {
    returned.ended()
}

impl Tests {
    /// Starts a run of this many tests.
    pub fn begin(count: usize) -> Tests {
        say(&format!("running {count} test{}\n", if count == 1 { "" } else { "s" }));
        Tests { start: Instant::now(), passed: 0, ignored: 0, failed: Vec::new() }
    }

    /// Runs a test, unless it is ignored for some reason (which may be empty). If `should_panic` is given, the test passes if it panics
    /// with that text in its message.
    pub fn run(
        &mut self,
        name: &str,
        ignored: Option<&str>,
        should_panic: Option<&str>,
        test: impl FnOnce() -> Result<(), String>,
    ) {
        if !self.ignores(name, ignored) {
            let end = catch_unwind(AssertUnwindSafe(test)).map_err(panic_of);
            self.note(name, should_panic, end);
        }
    }

    /// The same for a future.
    pub async fn wait_for(
        &mut self,
        name: &str,
        ignored: Option<&str>,
        should_panic: Option<&str>,
        test: impl Future<Output = Result<(), String>>,
    ) {
        if !self.ignores(name, ignored) {
            let mut test = pin!(test);
            let end =
                std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| test.as_mut().poll(context))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(end)) => Poll::Ready(Ok(end)),
                    Err(unwound) => Poll::Ready(Err(panic_of(unwound))),
                });
            let end = end.await;
            self.note(name, should_panic, end);
        }
    }

    /// Ends the run and prints the report; returns an error if a test failed.
    pub fn end(self) -> Result<(), TestsFailed> {
        let Tests { start, passed, ignored, failed } = self;
        if !failed.is_empty() {
            say("\nfailures:\n");
        }
        for (name, reason) in &failed {
            say(&format!("\n---- {name} ----\n{reason}\n"));
        }
        let result = if failed.is_empty() { "ok" } else { "FAILED" };
        say(&format!(
            "\ntest result: {result}. {passed} passed; {} failed; {ignored} ignored; finished in {:.2}s\n",
            failed.len(),
            start.elapsed().max(Duration::ZERO).as_secs_f64()
        ));
        if failed.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
        let ran = passed + failed.len();
        Err(TestsFailed(format!("{} of {ran} tests failed: {}", failed.len(), names.join(", "))))
    }

    fn ignores(&mut self, name: &str, ignored: Option<&str>) -> bool {
        if let Some(reason) = ignored {
            let reason = if reason.is_empty() { String::new() } else { format!(", {reason}") };
            say(&format!("test {name} ... ignored{reason}\n"));
            self.ignored += 1;
        }
        ignored.is_some()
    }

    fn note(&mut self, name: &str, should_panic: Option<&str>, end: Result<Result<(), String>, Panic>) {
        let wrong = match (end, should_panic) {
            (Ok(end), None) => end.err(),
            (Ok(_), Some(_)) => Some("it did not panic, as it should".to_owned()),
            (Err(panic), None) => Some(told(&panic)),
            (Err(panic), Some(expected)) if panic.message.contains(expected) => None,
            (Err(panic), Some(expected)) => Some(format!("{}\nit should panic with {expected:?}", told(&panic))),
        };
        let should = if should_panic.is_some() { " - should panic" } else { "" };
        say(&format!("test {name}{should} ... {}\n", if wrong.is_none() { "ok" } else { "FAILED" }));
        match wrong {
            None => self.passed += 1,
            Some(reason) => self.failed.push((name.to_owned(), reason)),
        }
    }
}

/// A panic with its line. The column is left out, since columns in the built code differ from the user's.
fn told(Panic { message, place: Place { file, line, .. } }: &Panic) -> String {
    let file = crate::output::cell_of(file);
    format!("panicked at {file}:{line}:\n{message}")
}

fn say(text: &str) {
    print_for(0, false, format_args!("{text}"));
}

/// The panic that ended a test. A stop ends all tests.
fn panic_of(unwound: Box<dyn Any + Send>) -> Panic {
    if unwound.is::<Stopped>() {
        resume_unwind(unwound);
    }
    crate::take_panic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_returns_tells_how_it_ended() {
        assert_eq!(ended(()), Ok(()));
        assert_eq!(ended(Ok::<(), i32>(())), Ok(()));
        assert_eq!(ended(Err::<(), _>("no")), Err("Error: \"no\"".to_owned()));
        assert!(ended(std::process::ExitCode::FAILURE).is_err());
    }

    #[test]
    fn a_panic_is_told_with_the_cell_and_the_line() {
        let place = |file: &str| Place { file: file.into(), line: 4, column: 9 };
        let panic = |file| Panic { message: "no".into(), place: place(file) };
        assert_eq!(told(&panic("In [3] 7")), "panicked at In [3]:4:\nno");
        assert_eq!(told(&panic("src/a.rs")), "panicked at src/a.rs:4:\nno");
    }

    #[test]
    fn every_failing_test_is_counted_and_named() {
        let mut tests = Tests::begin(4);
        tests.run("fine", None, None, || Ok(()));
        tests.run("wrong", None, None, || Err("Error: 1".into()));
        tests.run("calm", None, Some(""), || Ok(()));
        tests.run("later", Some("slow"), None, || panic!("it is ignored"));
        assert_eq!((tests.passed, tests.ignored, tests.failed.len()), (1, 1, 2));
        let failed = tests.end().err().map(|failed| failed.to_string());
        assert_eq!(failed.as_deref(), Some("2 of 3 tests failed: wrong, calm"));
    }
}
