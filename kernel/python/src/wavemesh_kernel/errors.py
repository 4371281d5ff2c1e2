"""Errors that a notebook shows as they are, without a traceback through Python."""


class RustError(Exception):
    """Anything that ends a Rust cell early. IPython shows `lines` and stops "run all"."""

    def __init__(self, message, lines=None):
        super().__init__(message)
        self.lines = lines

    def _render_traceback_(self):
        """IPython's hook for exceptions that bring their own text."""
        return self.lines or [f"\x1b[31m{type(self).__name__}\x1b[0m: {self}"]


class RustKernelDied(RustError):
    """The process of the Rust kernel ended."""


class RustKernelMissing(RustError):
    """There is no kernel, or no Rust toolchain for it."""


class RustInterrupted(RustError):
    """The user stopped the cell, and the kernel did not say so itself."""


class RustUsageError(RustError):
    """A magic was called in a way that has no meaning."""


def error_of_cell(content):
    """The exception for the content of a Jupyter `error` message. Its class has the name that the kernel gives the error."""
    name = content.get("ename") or "RustError"
    kind = type(name, (RustError,), {})
    return kind(content.get("evalue", ""), list(content.get("traceback") or []))
