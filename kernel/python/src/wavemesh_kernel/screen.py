"""Shows what the Rust kernel says in the notebook of the Python kernel, message by message."""

import getpass
import sys

from . import widgets

COMM = ("comm_open", "comm_msg", "comm_close")


class Screen:
    """The output area of `shell`'s notebook, or a terminal."""

    def __init__(self, shell):
        self.shell = shell
        self.on_comm = None  # called with a message's content to send to the Rust kernel

    def show(self, message):
        """Shows one iopub message. Ignores messages that have nothing to show."""
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            out = sys.stderr if content.get("name") == "stderr" else sys.stdout
            out.write(content.get("text", ""))
            out.flush()
        elif kind in ("display_data", "execute_result"):
            self.display(content)
        elif kind == "update_display_data":
            self.display(content, update=True)
        elif kind == "clear_output":
            self.shell.display_pub.clear_output(wait=content.get("wait", False))
        elif kind in COMM:
            self._comm(kind, message)

    def display(self, content, update=False):
        """Shows every MIME type as it came, with its metadata and display_id."""
        self.shell.display_pub.publish(
            data=content.get("data", {}),
            metadata=content.get("metadata", {}),
            transient=content.get("transient", {}),
            update=update,
        )

    def warn(self, text):
        """Shows a remark of the extension."""
        sys.stderr.write(text)
        sys.stderr.flush()

    def say(self, line):
        """Shows a line of progress."""
        print(line, flush=True)

    def ask(self, prompt, password):
        """Asks the user for a line."""
        return getpass.getpass(prompt) if password else input(prompt)

    def can_ask(self):
        """Whether this frontend can answer at all; nbconvert, for one, cannot."""
        kernel = getattr(self.shell, "kernel", None)
        return True if kernel is None else bool(kernel._allow_stdin)

    def _comm(self, kind, message):
        """Widgets: a comm of the Rust kernel becomes one of the Python kernel, under the same id."""
        kernel = getattr(self.shell, "kernel", None)
        if kernel is None:
            return
        content = message["content"]
        comms = kernel.comm_manager
        metadata = message.get("metadata")
        if kind == "comm_open":
            content, metadata = widgets.for_installed(content, metadata)
        if kind == "comm_open":
            comms.register_comm(Comm(content["comm_id"], self.on_comm))
        elif kind == "comm_close" and content["comm_id"] in comms.comms:
            comms.unregister_comm(comms.comms[content["comm_id"]])
        kernel.session.send(
            kernel.iopub_socket,
            kind,
            content,
            metadata=metadata,
            parent=kernel.get_parent("shell"),
            ident=f"comm-{content['comm_id']}".encode(),
            buffers=message.get("buffers"),
        )


class Comm:
    """What the Python kernel's comm manager needs of a comm: a place for the frontend's messages."""

    primary = False

    def __init__(self, comm_id, send):
        self.comm_id = comm_id
        self.send = send

    def handle_msg(self, message):
        """The frontend says something to the Rust side."""
        self.send("comm_msg", message["content"], message.get("buffers"))

    def handle_close(self, message):
        """The frontend closes the comm."""
        self.send("comm_close", message["content"])
