"""The parts of a frontend that the tests need, built on jupyter_client."""

import json
import os
import time
import uuid
from dataclasses import dataclass, field
from queue import Empty

import psutil
from jupyter_client import KernelManager

# A cell may have to wait for the first compile of a fresh kernel, or of tokio, on a busy machine.
PATIENCE = 240

# The first cell of every tutorial.
SETUP = (
    '%load_ext {__import__("importlib.util").util.find_spec("wavemesh_kernel") and "wavemesh_kernel" \\\n'
    '    or print("Install WaveMesh first: COLAB_SETUP.md says how.") or ""}'
)


@dataclass
class Ran:
    """The result of a cell: its reply and its messages on iopub, from busy to idle."""

    reply: dict
    messages: list = field(default_factory=list)

    @property
    def status(self):
        return self.reply["content"]["status"]

    def of(self, *kinds):
        return [m["content"] for m in self.messages if m["msg_type"] in kinds]

    def stream(self, name="stdout"):
        return "".join(c["text"] for c in self.of("stream") if c["name"] == name)

    @property
    def value(self):
        """The text of the value at the end of the cell."""
        results = self.of("execute_result")
        return results[-1]["data"]["text/plain"] if results else None

    @property
    def error(self):
        errors = self.of("error")
        assert len(errors) <= 1, errors
        return errors[0] if errors else None


def manager(transport):
    """A manager whose ipc sockets, if it has any, are next to its connection file and not in the current folder."""
    file = os.path.join(os.environ["JUPYTER_RUNTIME_DIR"], f"{uuid.uuid4().hex[:8]}.json")
    return KernelManager(kernel_name="wavemesh", transport=transport, connection_file=file)


class Kernel:
    """A running kernel and one client of it."""

    def __init__(self, transport="tcp", **start):
        self.manager = manager(transport)
        self.start = start

    def __enter__(self):
        self.manager.start_kernel(**self.start)
        self.connect()
        return self

    def connect(self):
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=30)

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel()

    @property
    def process(self):
        provisioner = getattr(self.manager, "provisioner", None)
        return psutil.Process(provisioner.pid if provisioner else self.manager.kernel.pid)

    def send(self, code, **options):
        """Sends a cell; returns its msg_id."""
        return self.client.execute(code, **options)

    def shell(self, msg_id, timeout=PATIENCE):
        """The reply to `msg_id`; other replies are skipped."""
        return self._find(self.client.get_shell_msg, msg_id, timeout)

    def control(self, kind, content=None, timeout=PATIENCE):
        """Sends a request on the control channel and waits for the reply."""
        message = self.client.session.msg(kind, content or {})
        self.client.control_channel.send(message)
        return self._find(self.client.get_control_msg, message["header"]["msg_id"], timeout)

    def ask(self, kind, content=None, timeout=PATIENCE):
        """Sends a request on the shell channel and waits for the reply."""
        message = self.client.session.msg(kind, content or {})
        self.client.shell_channel.send(message)
        return self.shell(message["header"]["msg_id"], timeout)

    def iopub(self, msg_id, timeout=PATIENCE):
        """The messages about `msg_id` up to its idle status, that message included, as they arrive."""
        end = time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, end - time.monotonic()))
            if message["parent_header"].get("msg_id") == msg_id:
                yield message
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return

    def run(self, code, timeout=PATIENCE, **options):
        """Runs a cell to its end."""
        msg_id = self.send(code, **options)
        messages = list(self.iopub(msg_id, timeout))
        return Ran(self.shell(msg_id, timeout), messages)

    def value(self, code):
        """Runs a cell that must succeed; returns its value."""
        ran = self.run(code)
        assert ran.status == "ok", "\n".join(ran.reply["content"]["traceback"])
        return ran.value

    def wait_until_running(self, msg_id):
        """Waits until the cell has printed something; returns the messages so far."""
        messages = []
        for message in self.iopub(msg_id):
            messages.append(message)
            if message["msg_type"] == "stream":
                return messages
        raise AssertionError(f"the cell ended without printing: {messages}")

    def silence(self, seconds=0.3):
        """Skips messages on iopub until none arrives for a while."""
        try:
            while True:
                self.client.get_iopub_msg(timeout=seconds)
        except Empty:
            pass

    @staticmethod
    def _find(get, msg_id, timeout):
        end = time.monotonic() + timeout
        while True:
            message = get(timeout=max(0.01, end - time.monotonic()))
            if message["parent_header"].get("msg_id") == msg_id:
                return message

    def connection(self):
        with open(self.manager.connection_file) as file:
            return json.load(file)
