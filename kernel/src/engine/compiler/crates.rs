//! The crates of `:dep`, built before the first cell that can name them.

use super::{Compiler, Failed, Order};
use crate::engine::deps::{self, Dependencies};
use crate::engine::{Output, library, progress};

impl Compiler {
    /// The crates that cells want, built now if needed; with the runtime behind `.await` if `runtime`.
    pub(super) fn dependencies(&self, runtime: bool, order: &Order) -> Result<Dependencies, Failed> {
        let (mut current, offline) = {
            let mut state = self.state();
            if runtime {
                state.dependencies.want_runtime();
            }
            (state.dependencies.clone(), state.offline)
        };
        if current.are_built() {
            return Ok(current);
        }
        let cache = library::cache_home().unwrap_or_else(|| self.folder.clone()).join("target");
        let mut bar = progress::Line::new(&self.pipes, "Building dependencies");
        let built = current.build(&mut deps::Build {
            folder: &self.folder.join("deps"),
            cache: &cache,
            toolchain: &self.toolchain,
            offline,
            env: &self.rustc.env(),
            bundle: self.bundle.as_ref(),
            say: &mut |text| self.pipes.send(Output::Stderr(text + "\n")),
            progress: &mut |line| bar.set(line),
            compiled: &mut |named| (order.crates_compiled)(named),
            started: &mut |process| self.rustc.set_group(process),
        });
        bar.finish(built.is_ok());
        let mut state = self.state();
        let replaced = match built {
            Ok(replaced) => replaced,
            Err(message) => {
                state.dependencies.forget_unbuilt();
                (order.crates_compiled)(state.dependencies.named());
                return Err(if self.rustc.interrupted() { Failed::Interrupted } else { Failed::Other(message) });
            }
        };
        let notes = state.replace_crates(order.number, &replaced);
        state.dependencies = current.clone();
        drop(state);
        self.tell(notes);
        Ok(current)
    }
}
