"""Rust cells in a Python notebook.

`%load_ext wavemesh_kernel` starts a Rust kernel beside the Python one; from then on a cell is Rust unless it starts with
`%`, `!` or `%%python`.
"""

__version__ = "0.1.0"


def load_ipython_extension(shell):
    """Called by IPython for `%load_ext wavemesh_kernel`."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell):
    """Called by IPython for `%unload_ext wavemesh_kernel`."""
    from .magics import unload

    unload(shell)
