"""A notebook, driven as Colab drives it: a kernel over ipc, messages observed one by one. The kernel is Python's unless said otherwise."""

import os
import queue
import sys
import tempfile
import threading
import time

from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

PYTHON = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class OneSpec(KernelSpecManager):
    """Knows one kernelspec."""

    def __init__(self, argv, interrupt_mode):
        super().__init__()
        self.spec = KernelSpec(argv=argv, interrupt_mode=interrupt_mode)

    def get_kernel_spec(self, kernel_name):
        return self.spec


class Notebook:
    """A kernel. `run` executes a cell and returns what it gave, in order, with the time of each message."""

    def __init__(self, cwd, env, argv=PYTHON, interrupt_mode="signal"):
        """`env` is the kernel's whole environment, `argv` its command as a kernelspec has it."""
        self.folder = tempfile.TemporaryDirectory(prefix="nb-")
        self.manager = KernelManager(
            kernel_name="kernel",
            kernel_spec_manager=OneSpec(argv, interrupt_mode),
            transport="ipc",
            ip=os.path.join(self.folder.name, "s"),
            connection_file=os.path.join(self.folder.name, "c.json"),
        )
        self.manager.start_kernel(cwd=str(cwd), env=env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)
        self.folder.cleanup()

    def run(self, code, **options):
        """Runs a cell. `answers` are typed when it asks. After `interrupt_after` seconds (or each of a list), stop is pressed.

        For a moment after an error, a Python kernel refuses all cells. People are not that fast, so a refused cell is sent again.
        """
        while (ran := self._run(code, **options)).reply["status"] == "aborted":
            time.sleep(0.1)
        return ran

    def _run(self, code, timeout=120, answers=(), interrupt_after=None, **options):
        answers = list(answers)
        started = time.monotonic()
        request = self.client.execute(code, allow_stdin=bool(answers), **options)
        for delay in interrupt_after if isinstance(interrupt_after, list) else [interrupt_after] * (interrupt_after is not None):
            timer = threading.Timer(delay, self.manager.interrupt_kernel)
            timer.daemon = True
            timer.start()
        ran = Ran()
        while True:
            if time.monotonic() - started > timeout:
                raise TimeoutError(f"{code!r} did not end in {timeout} s; so far: {ran.messages}")
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                try:
                    asked = self.client.get_stdin_msg(timeout=0)
                except queue.Empty:
                    continue
                ran.prompts.append(asked["content"])
                self.client.input(answers.pop(0))
                continue
            if message["parent_header"].get("msg_id") != request:
                ran.strangers.append(message)
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
            if message["msg_type"] not in ("status", "execute_input"):
                ran.messages.append((time.monotonic() - started, message["msg_type"], message["content"]))
        ran.seconds = time.monotonic() - started
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == request:
                ran.reply = reply["content"]
                return ran

    def ask(self, method, *arguments):
        """The content of the reply to `complete`, `inspect` or `is_complete`."""
        request = getattr(self.client, method)(*arguments)
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]


class Ran:
    """The messages that a cell sent, and its reply."""

    def __init__(self):
        self.messages = []
        self.prompts = []
        self.strangers = []
        self.reply = None
        self.seconds = None

    def of(self, kind):
        """The contents of one kind of message."""
        return [content for _, found, content in self.messages if found == kind]

    def kinds(self):
        return [kind for _, kind, _ in self.messages]

    def text(self, name="stdout"):
        """All that was printed."""
        return "".join(content["text"] for content in self.of("stream") if content["name"] == name)

    def value(self, mime="text/plain"):
        """The value that ended the cell."""
        (content,) = self.of("execute_result")
        return content["data"][mime]

    def ok(self):
        """Checks that the cell succeeded, and returns itself."""
        assert self.reply["status"] == "ok", f"{self.reply['ename']}: {self.reply['evalue']}"
        return self
