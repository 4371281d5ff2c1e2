//! `?` in a cell: any error ends the cell, and so does a `None`; everything known about the error is reported.
//!
//! This needs two unstable features, so it is compiled for cells only, which use unstable features anyway (`--cfg wavemesh_cells`).

use std::convert::Infallible;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::ops::FromResidual;
use std::panic::Location;

use crate::store::{Outcome, Stop};

impl<E: Debug> FromResidual<Result<Infallible, E>> for Outcome {
    #[track_caller]
    fn from_residual(residual: Result<Infallible, E>) -> Outcome {
        let Err(error) = residual;
        failed(std::any::type_name::<E>(), &error, error.said(), Location::caller())
    }
}

/// This is not generic over the error: generic code would be compiled with every cell that uses `?`.
#[inline(never)]
fn failed(ty: &str, error: &dyn Debug, said: Said, at: &Location) -> Outcome {
    crate::failed(&said.told(), &name_of(ty, error), at);
    Outcome(Err(Stop::Failed))
}

/// The name of an error: its variant for an enum, the error inside for a box, otherwise its type.
fn name_of(ty: &str, error: &dyn Debug) -> String {
    let boxed = ty.contains("dyn ");
    // The inner names of the standard library's errors do not help users.
    if ["core::", "alloc::", "std::"].iter().any(|root| ty.starts_with(root)) && !boxed {
        return ty.to_owned();
    }
    let told = format!("{error:?}");
    let (word, rest) = told.split_at(told.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(told.len()));
    let derived = word.starts_with(char::is_uppercase) && (rest.is_empty() || rest.starts_with([' ', '(']));
    match (derived, boxed) {
        (true, _) if !ty.ends_with(&format!("::{word}")) => word.to_owned(),
        (_, true) => "Error".to_owned(),
        _ => ty.to_owned(),
    }
}

impl FromResidual<Option<Infallible>> for Outcome {
    #[track_caller]
    fn from_residual(_: Option<Infallible>) -> Outcome {
        crate::failed("`?` met `None`", "None", Location::caller());
        Outcome(Err(Stop::Failed))
    }
}

/// The most detailed description that an error offers.
enum Said<'a> {
    Debug(&'a dyn Debug),
    /// The alternate form of some errors (anyhow's) includes their causes.
    Display(&'a dyn Display),
    Error(&'a (dyn Error + 'a)),
}

trait Says {
    fn said(&self) -> Said<'_>;
}

impl<E: Debug> Says for E {
    default fn said(&self) -> Said<'_> {
        Said::Debug(self)
    }
}

impl<E: Debug + Display> Says for E {
    default fn said(&self) -> Said<'_> {
        Said::Display(self)
    }
}

impl<E: Error> Says for E {
    fn said(&self) -> Said<'_> {
        Said::Error(self)
    }
}

impl Said<'_> {
    fn told(&self) -> String {
        match self {
            Said::Debug(error) => format!("{error:?}"),
            Said::Display(error) => format!("{error:#}"),
            Said::Error(error) => with_causes(*error),
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        // Some errors already include their cause.
        if !text.contains(&told) {
            text.push_str(&format!(": {told}"));
        }
        cause = inner.source();
    }
    text
}
