//! The statements of a cell, built as often as it takes to learn what becomes of its variables.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;

use super::plan::Plan;
use super::{Compiler, Failed, Object, Order, errors};
use crate::engine::body::Body;
use crate::engine::cell::{Cell, Part, Run, words};
use crate::engine::definitions::Definitions;
use crate::engine::deps::Dependencies;
use crate::engine::rustc::Job;
use crate::engine::variables::{Fate, State as VariableState};

impl Compiler {
    pub(super) fn compile_body(
        &self,
        order: &Order,
        run: &Arc<Run>,
        cell: &Cell,
        definitions: &Definitions,
        dependencies: &Dependencies,
        lost: &[String],
    ) -> Result<Object, Failed> {
        let mut plan = Plan::new(order, cell, lost, &self.state());
        let known = definitions.names();
        let mentioned: HashSet<&str> =
            cell.statements.iter().flat_map(|statement| words(&order.source[statement.range.clone()])).collect();
        let mut names: Vec<String> = known.into_iter().filter(|name| mentioned.contains(name.as_str())).collect();
        names.sort();
        let mut forgotten = self.state().forgotten.clone();
        forgotten.extend_from_slice(lost);
        let block_on = dependencies.block_on();
        let within = dependencies.within();
        let crates = self.named_crates(dependencies, definitions);
        for _ in 0..12 {
            let body = Body {
                source: order.source,
                cell,
                bound: &plan.bound,
                loaded: &plan.loaded,
                forgotten: &forgotten,
                levels: &plan.levels,
                run: order.id,
                names: definitions.library.as_ref().map(|_| &names[..]),
                prelude: self.prelude(dependencies),
                crates: &crates,
                show: order.show.then(|| self.show_macro()),
                block_on: cell.awaits.then_some(block_on.as_deref()).flatten(),
                within: within.as_deref(),
            };
            let woven = body.weave();
            let folder = self.folder.join("b").join(self.next_build().to_string());
            std::fs::create_dir_all(&folder).context("cannot make a folder for the cell")?;
            std::fs::write(folder.join(&run.label), &woven.built.text).context("cannot write the cell")?;
            run.set_built(Part::Body, woven.built.clone());
            let output = folder.join("libcell.so");
            let mut args = self.externs(dependencies);
            if let Some(library) = &definitions.library {
                args.push(format!("--extern=ctx={}", library.file.display()));
                // A cell may use of it nothing but a static whose home is an earlier version, and needs this one to find it.
                args.push("-Clink-arg=-Wl,--no-as-needed".to_owned());
                args.push(format!("-Clink-arg={}", library.file.display()));
            }
            let outcome = self.rustc.run(&Job {
                folder: &folder,
                file: &run.label,
                output: &output,
                crate_name: "cell",
                crate_type: "cdylib",
                opt_level: order.opt_level,
                args,
            });
            let outcome = self.timed(outcome)?;
            if outcome.success {
                if plan.note_types(&outcome.messages, &woven) {
                    continue;
                }
                self.state().running = Some(plan.running(order.number));
                return Ok(Object { library: output, function: format!("run_user_code_{}", order.id), run: order.id });
            }
            if !plan.mend(&outcome.messages, &woven, cell, order.number) {
                return Err(Failed::Refused(errors(&outcome.messages), Part::Body));
            }
            self.give_up_loading(&plan);
        }
        Err(Failed::Other("the cell's variables borrow from each other".to_owned()))
    }

    /// Variables whose type cannot be named here are no more.
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
