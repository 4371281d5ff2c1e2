//! Compiles the statements of a cell, as often as needed to learn what becomes of its variables.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use super::mending::Mended;
use super::names::OWN_CRATE;
use super::plan::Plan;
use super::{Compiler, Failed, Object, Order, errors};
use crate::engine::body::{Body, SHOW_PLAINLY, Woven};
use crate::engine::cell::{Cell, Part, Run, words};
use crate::engine::definitions::Definitions;
use crate::engine::deps::Dependencies;
use crate::engine::rustc::{Job, Outcome, spans};
use crate::engine::variables::{Fate, State as VariableState};

/// What all builds of a cell's statements have in common.
struct Weaving<'a> {
    order: &'a Order<'a>,
    run: &'a Arc<Run>,
    cell: &'a Cell,
    definitions: &'a Definitions,
    dependencies: &'a Dependencies,
    /// Names of the notebook's items that the cell mentions.
    names: Vec<String>,
    /// Crates that are imported by name, so that they win over the prelude's.
    crates: Vec<String>,
    forgotten: Vec<String>,
}

/// The result of a build.
struct Built {
    outcome: Outcome,
    woven: Woven,
    library: PathBuf,
}

impl Compiler {
    pub(super) fn compile_body(
        &self,
        order: &Order,
        run: &Arc<Run>,
        cell: &Cell,
        definitions: &Definitions,
        dependencies: &Dependencies,
        lost: &[(String, VariableState)],
    ) -> Result<Object, Failed> {
        let lost: Vec<String> = lost.iter().map(|(name, _)| name.clone()).collect();
        let mut plan = Plan::new(order, cell, &lost, &self.state());
        let mentioned: HashSet<&str> =
            cell.statements.iter().flat_map(|statement| words(&order.source[statement.range.clone()])).collect();
        let mut names: Vec<String> =
            definitions.names().into_iter().filter(|name| mentioned.contains(name.as_str())).collect();
        names.sort();
        let mut forgotten = self.state().forgotten.clone();
        forgotten.extend(lost);
        let crates = self.named_crates(dependencies, definitions);
        let weaving = Weaving { order, run, cell, definitions, dependencies, names, crates, forgotten };
        let mut unsure = None;
        // Each failed build excludes a variable or a level, and a cell has few of these.
        for _ in 0..100 {
            let Built { outcome, woven, library } = self.build_body(&weaving, &plan, false)?;
            if outcome.success {
                if plan.note_types(&outcome.messages, &woven) {
                    continue;
                }
                self.warn(&outcome.messages, std::slice::from_ref(run), Part::Body);
                self.state().running = Some(plan.running(order.number));
                return Ok(Object { library, function: format!("run_user_code_{}", order.id), run: order.id });
            }
            match plan.mend(&outcome.messages, &woven, cell, order.number) {
                Mended::Changed => self.give_up_loading(&plan),
                Mended::TypesWanted => self.ask_types(&weaving, &mut plan)?,
                Mended::Not if order.show && !plan.shown_plainly && lacks_a_type(&outcome.messages) => {
                    plan.shown_plainly = true;
                    unsure = Some((outcome.messages, woven.built));
                }
                Mended::Not => {
                    // Report what rustc said about the cell as it is usually built.
                    let messages = unsure.map_or(outcome.messages, |(messages, built)| {
                        run.set_body(built);
                        messages
                    });
                    return Err(Failed::Refused(errors(&messages), Part::Body));
                }
            }
        }
        Err(Failed::Other("the cell's variables borrow from each other".to_owned()))
    }

    /// Builds the plain code to learn the types of its variables. Other errors in it are the user's own mistakes.
    fn ask_types(&self, weaving: &Weaving, plan: &mut Plan) -> Result<(), Failed> {
        while !plan.typed {
            let Built { outcome, woven, .. } = self.build_body(weaving, plan, true)?;
            if outcome.success {
                plan.note_types(&outcome.messages, &woven);
                plan.typed = true;
            } else if !plan.mend_plain(&outcome.messages, &woven) {
                return Err(Failed::Refused(errors(&outcome.messages), Part::Body));
            }
        }
        Ok(())
    }

    fn build_body(&self, weaving: &Weaving, plan: &Plan, plain: bool) -> Result<Built, Failed> {
        let Weaving { order, run, cell, definitions, dependencies, .. } = weaving;
        let (block_on, within) = (dependencies.block_on(), dependencies.within());
        let body = Body {
            source: order.source,
            cell,
            bound: &plan.bound,
            loaded: &plan.loaded,
            forgotten: &weaving.forgotten,
            levels: &plan.levels,
            plain,
            run: order.id,
            names: definitions.library.as_ref().map(|_| &weaving.names[..]),
            prelude: self.prelude(dependencies),
            crates: &weaving.crates,
            show: order.show.then(|| if plan.shown_plainly { SHOW_PLAINLY } else { self.show_macro(order.source) }),
            block_on: cell.awaits.then_some(block_on.as_deref()).flatten(),
            within: within.as_deref(),
        };
        let woven = body.weave();
        let folder = self.folder.join("b").join(self.next_build().to_string());
        std::fs::create_dir_all(&folder).context("cannot make a folder for the cell")?;
        std::fs::write(folder.join(run.label()), &woven.built.text).context("cannot write the cell")?;
        run.set_body(woven.built.clone());
        let library = folder.join("libcell.so");
        let mut args = self.externs(dependencies);
        // Of the same name as the definitions, which `module_path!()` says and log filters take, and another crate for all that.
        args.push("-Cmetadata=cell".to_owned());
        if let Some(library) = &definitions.library {
            args.push(format!("--extern=this_notebook={}", library.file.display()));
            // A cell may use nothing from it but a static whose home is an earlier version, and needs this version to find it.
            args.push("-Clink-arg=-Wl,--no-as-needed".to_owned());
            args.push(format!("-Clink-arg={}", library.file.display()));
        }
        let outcome = self.rustc.run(&Job {
            folder: &folder,
            file: run.label(),
            output: &library,
            crate_name: OWN_CRATE,
            crate_type: "cdylib",
            emit: if plain { "metadata" } else { "link" },
            opt_level: order.opt_level,
            args,
        });
        Ok(Built { outcome: self.timed(outcome)?, woven, library })
    }

    /// Marks variables as gone whose type cannot be named in this cell.
    fn give_up_loading(&self, plan: &Plan) {
        let mut state = self.state();
        for loaded in &plan.loaded {
            if let Fate::Gone(gone @ VariableState::Fleeting(_)) = &loaded.fate
                && let Some(variable) = state.variables.get_mut(&loaded.name)
            {
                variable.state = gone.clone();
            }
        }
    }
}

/// Whether the only errors of a build are types that rustc could not infer.
fn lacks_a_type(messages: &[Value]) -> bool {
    let mut errors = messages.iter().filter(|message| message["level"] == "error" && !spans(message).is_empty());
    errors.all(|message| matches!(message["code"]["code"].as_str(), Some("E0282" | "E0283" | "E0284")))
}
