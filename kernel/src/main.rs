//! The kernel's one binary: the Jupyter kernel, and the process that runs user code.
mod engine;

fn main() {
    evcxr::runtime_hook();
}
