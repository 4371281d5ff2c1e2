"""Completion, inspection and is-complete for Rust cells: the Python kernel asks the Rust kernel for the answers.

ipykernel has no hook for this, so three methods of its kernel object are wrapped while the extension is loaded. In a plain terminal
there is no kernel object, and IPython completes as usual.
"""

from .cells import rust_part

WRAPPED = ("do_complete", "do_inspect", "do_is_complete")


def install(extension):
    """Wraps the kernel's methods."""
    kernel = getattr(extension.shell, "kernel", None)
    if kernel is None:
        return
    python = {name: getattr(kernel, name) for name in WRAPPED}

    def do_complete(code, cursor_pos):
        part = rust_part(code, extension.rust_mode)
        if part is None or cursor_pos is None or cursor_pos < part.offset:
            return python["do_complete"](code, cursor_pos)
        reply = extension.kernel.ask("complete_request", {"code": part.code, "cursor_pos": cursor_pos - part.offset})
        if reply is None or reply.get("status") != "ok":
            return {"status": "ok", "matches": [], "cursor_start": cursor_pos, "cursor_end": cursor_pos, "metadata": {}}
        metadata = dict(reply.get("metadata", {}))
        typed = "_jupyter_types_experimental"
        if typed in metadata:
            metadata[typed] = [moved(entry, "start", "end", by=part.offset) for entry in metadata[typed]]
        return moved({**reply, "metadata": metadata}, "cursor_start", "cursor_end", by=part.offset)

    def do_inspect(code, cursor_pos, detail_level=0, *arguments, **options):
        part = rust_part(code, extension.rust_mode)
        if part is None or cursor_pos < part.offset:
            return python["do_inspect"](code, cursor_pos, detail_level, *arguments, **options)
        content = {"code": part.code, "cursor_pos": cursor_pos - part.offset, "detail_level": detail_level}
        reply = extension.kernel.ask("inspect_request", content)
        return reply or {"status": "ok", "found": False, "data": {}, "metadata": {}}

    def do_is_complete(code):
        part = rust_part(code, extension.rust_mode)
        if part is None:
            return python["do_is_complete"](code)
        return extension.kernel.ask("is_complete_request", {"code": part.code}) or {"status": "unknown"}

    for wrapper in (do_complete, do_inspect, do_is_complete):
        setattr(kernel, wrapper.__name__, wrapper)


def remove(extension):
    """Restores the kernel's own methods. The wrappers are attributes of the object, and hide the methods of its class."""
    kernel = getattr(extension.shell, "kernel", None)
    for name in WRAPPED:
        if kernel is not None and name in vars(kernel):
            delattr(kernel, name)


def moved(entry, *keys, by):
    """`entry` with the positions under `keys` moved, if it has them."""
    return {key: value + by if key in keys else value for key, value in entry.items()}
