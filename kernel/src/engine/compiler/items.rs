//! Compiles the notebook's items as a library of their own. Items that no longer compile are found and left out.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::names::{OWN_CRATE, plain_names};
use super::{Compiler, Failed, Order, errors};
use crate::engine::cell::{Part, Run, page_of};
use crate::engine::definitions::{Definitions, Library, Source, Stale};
use crate::engine::deps::Dependencies;
use crate::engine::rustc::{Job, place_in, spans};

impl Compiler {
    /// Compiles the items of the notebook. Leaves out items of other cells that no longer compile. Returns the statics that start again.
    pub(super) fn define(
        &self,
        definitions: &mut Definitions,
        own: &[Arc<Run>],
        order: &Order,
        dependencies: &Dependencies,
    ) -> Result<Vec<String>, Failed> {
        let folder = self.folder.join("definitions");
        // Leaving out one item may make others fail, so this is repeated.
        for _ in 0..30 {
            if definitions.is_empty() {
                return Ok(Vec::new());
            }
            let version = self.next_build();
            let file = folder.join(format!("libctx-{version}.so"));
            let source = definitions.source(version, &file);
            self.write_definitions(&folder, &source, definitions, dependencies)?;
            let mut args = self.externs(dependencies);
            args.push("-Cmetadata=notebook".to_owned());
            // `file!()` returns the label.
            args.push(format!("--remap-path-prefix={}/=", folder.display()));
            args.push(format!("-Clink-arg=-Wl,-soname,libctx-{version}.so"));
            // Each version uses its own symbols first, whatever else is loaded.
            args.push("-Clink-arg=-Wl,-Bsymbolic".to_owned());
            if !source.homes.is_empty() {
                args.push("-Clink-arg=-Wl,--no-as-needed".to_owned());
                args.extend(source.homes.iter().map(|home| format!("-Clink-arg={}", home.display())));
            }
            let outcome = self.rustc.run(&Job {
                folder: &folder,
                file: "lib.rs",
                output: &file,
                crate_name: OWN_CRATE,
                crate_type: "dylib",
                emit: "link",
                opt_level: order.opt_level,
                args,
            });
            let outcome = self.timed(outcome)?;
            for (run, built) in &source.files {
                run.set_items(built);
            }
            if outcome.success {
                self.warn(&outcome.messages, own, Part::Items);
                let anew = source.anew.clone();
                definitions.compiled(Arc::new(Library { file }), source);
                return Ok(anew);
            }
            self.leave_out_stale(definitions, own, order.number, &outcome.messages)?;
        }
        Err(Failed::Other("the notebook's items do not compile with this cell".to_owned()))
    }

    fn write_definitions(
        &self,
        folder: &Path,
        source: &Source,
        definitions: &Definitions,
        dependencies: &Dependencies,
    ) -> Result<()> {
        // `macro_use`, so that modules see these macros too.
        let mut root =
            String::from("#[macro_use(dbg, eprint, eprintln, print, println)] extern crate wavemesh_cell;\n");
        // What an item prints belongs to the cell that runs.
        root.push_str("const WAVEMESH_CELL_RUN: u64 = 0;\n");
        if let Some(prelude) = self.prelude(dependencies) {
            root.push_str(&format!("use {prelude}::*;\n"));
        }
        for name in self.named_crates(dependencies, definitions) {
            root.push_str(&format!("use ::{name};\n"));
        }
        for (run, built) in &source.files {
            // The pages after the first are modules; `mod` declarations refer to them.
            root.push_str(&format!("include!({:?});\n", run.label()));
            for (page, built) in run.pages.iter().zip(built) {
                write_if_new(&folder.join(&page.label), &built.text)?;
            }
        }
        write_if_new(&folder.join("lib.rs"), &root)
    }

    /// Leaves out the items of other cells that have errors. If errors lie in the cell itself, or nowhere known, they are reported as the
    /// cell's own.
    fn leave_out_stale(
        &self,
        definitions: &mut Definitions,
        own: &[Arc<Run>],
        number: u32,
        messages: &[Value],
    ) -> Result<(), Failed> {
        let runs = self.runs();
        let mut refused = Vec::new();
        let mut found = false;
        for message in messages.iter().filter(|message| message["level"] == "error") {
            // If two items have the same name, as a macro may cause, the newer one counts.
            let doubled = ["E0428", "E0252", "E0255"].iter().any(|code| message["code"]["code"] == *code);
            let page = |file: &str| page_of(&runs, file);
            let place = spans(message)
                .iter()
                .filter(|span| span["is_primary"] != doubled)
                .find_map(|span| place_in(span, |file| page(file).is_some()));
            let Some((file, bytes)) = place else { continue };
            let Some((at, page)) = page(file) else { continue };
            if own.iter().any(|run| Arc::ptr_eq(at, run)) {
                refused.push(message.clone());
                continue;
            }
            let byte = at.built(Part::Items, page).and_then(|built| built.source_of(bytes.start));
            let reason = message["message"].as_str().unwrap_or_default().to_owned();
            let stale = Stale { reason: plain_names(&reason), by: number };
            if let Some((byte, _)) = byte {
                found |= definitions.leave_out(at, byte, &stale);
            }
        }
        if !refused.is_empty() {
            return Err(Failed::Refused(refused, Part::Items));
        }
        if found { Ok(()) } else { Err(Failed::Refused(errors(messages), Part::Items)) }
    }
}

fn write_if_new(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
