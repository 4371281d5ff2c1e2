"""Runs the Rust kernel beside the Python one, and relays its messages.

Requests are sent and answers are read on the notebook's own thread, with plain sockets: the loop of the Python kernel never runs
inside a cell, so no other request can slip in between. jupyter_client only starts and stops the process. It needs an event loop for
that, so it has a thread of its own.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager

import zmq
from jupyter_client import KernelManager

from .errors import RustInterrupted, RustKernelDied, RustKernelMissing, error_of_cell
from .locate import NAME, find_kernel_specs

POLL_MS = 100
ALIVE_EVERY = 0.5  # seconds
ASSIST_LIMIT = 3.0  # seconds; completion that takes longer is of no use
CHANNELS = {"shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB}
UNIX_PATH_LIMIT = 100  # a path may have 107 characters; the rest is for "-12345"


class RustKernel:
    """One Rust kernel: started on demand, restarted after it died. `screen` shows what it says."""

    def __init__(self, screen, name=None):
        self.screen = screen
        self.name = name
        self.folder = None
        self._manager = None
        self._sockets = {}
        self._ready = False
        self._starting = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rust-kernel")

    # Life of the process

    def start(self):
        """Starts the process and returns at once; a failure shows when the kernel is first used."""
        if self._manager is None and self._starting is None:
            specs = find_kernel_specs()
            self.folder = tempfile.mkdtemp(prefix="wavemesh-")
            self._manager = new_manager(specs, self.folder)
            self._starting = self._thread.submit(start_process, self._manager, os.path.join(self.folder, "kernel.log"))

    def ensure_ready(self):
        """Waits until the kernel answers, however long that takes, unless it dies or the user interrupts."""
        if self._ready:
            if self.is_alive():
                return
            self._died()
        self.start()
        try:
            self._starting.result()
            self._handshake()
        except OSError as error:
            self.shutdown()
            raise RustKernelMissing(f"the Rust kernel cannot be started: {error}. `%rust doctor` looks for the reason.") from None
        except KeyboardInterrupt:
            self.shutdown()
            raise RustInterrupted("interrupted while the Rust kernel started; it is stopped") from None
        except BaseException:
            self.shutdown()
            raise

    def _connect(self):
        manager = self._manager
        for channel, kind in CHANNELS.items():
            socket = manager.context.socket(kind)
            socket.linger = 0
            socket.set_hwm(0)  # a message that waits is never dropped
            if kind == zmq.SUB:
                socket.subscribe(b"")
            else:
                socket.identity = manager.session.bsession
            port = getattr(manager, f"{channel}_port")
            separator = ":" if manager.transport == "tcp" else "-"
            socket.connect(f"{manager.transport}://{manager.ip}{separator}{port}")
            self._sockets[channel] = socket

    def _handshake(self, end=None):
        """Waits until the kernel answers, or until the time `end`, and returns whether it has."""
        if not self._sockets:
            self._connect()
        # A subscription takes a moment to reach the kernel; until something comes on iopub, it has not.
        heard, answered = False, False
        asked = 0.0
        while not (heard and answered):
            if end is not None and time.monotonic() > end:
                return False
            if time.monotonic() - asked > 1:
                self._send("shell", "kernel_info_request", {})
                asked = time.monotonic()
            for channel in self._poll(("shell", "iopub"), POLL_MS):
                self._receive(channel)
                heard |= channel == "iopub"
                answered |= channel == "shell"
            if not (heard and answered) and not self.is_alive():
                raise RustKernelDied("the Rust kernel ended while it started. " + self._last_words())
        self._ready = True
        return True

    def _answers(self, end):
        """Whether a kernel that was started answers by the time `end`. If it cannot start, the next cell says why."""
        if self._ready:
            return self.is_alive()
        if self._starting is None:
            return False
        try:
            failed = self._starting.exception(max(end - time.monotonic(), 0)) is not None
            return not failed and self._handshake(end)
        except (TooLate, RustKernelDied):
            return False

    def is_alive(self):
        """Whether the process runs."""
        return self._manager is not None and self._thread.submit(self._manager.is_alive).result()

    def shutdown(self):
        """Ends the process, with what it started, and removes its private folder."""
        manager, self._manager = self._manager, None
        self._ready, self._starting = False, None
        for socket in self._sockets.values():
            socket.close(0)
        self._sockets = {}
        if manager is not None:
            try:
                self._thread.submit(stop_process, manager).result()
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self):
        """Starts a fresh kernel. All variables are gone."""
        self.shutdown()
        self.ensure_ready()

    def interrupt(self):
        """Asks the kernel to stop the cell that runs."""
        if self._sockets:
            if self._manager.kernel_spec.interrupt_mode == "message":
                self._send("control", "interrupt_request", {})
            else:
                self._thread.submit(self._manager.interrupt_kernel).result()

    def _last_words(self):
        try:
            with open(os.path.join(self.folder, "kernel.log"), "rb") as log:
                tail = log.read()[-2000:].decode(errors="replace").strip()
        except OSError:
            tail = ""
        return f"Its last words:\n{tail}" if tail else "It left no message; `%rust doctor` looks for the reason."

    def _died(self):
        words = self._last_words()
        self.shutdown()
        self.start()
        raise RustKernelDied(
            "the Rust kernel died and its variables are lost. A new one is starting: run the cells above again. "
            "If a cell needs more memory than the machine has, this is what happens. " + words
        )

    # Requests

    def execute(self, code, allow_stdin=True, store_history=True, number=None):
        """Runs a cell, shows its messages as they arrive, and returns its value as a MIME bundle, or None.

        `number` is the number that the page shows beside the cell. Messages then refer to the cell by it.
        """
        self.ensure_ready()
        content = {
            "code": code,
            "silent": False,
            "store_history": store_history,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        metadata = {} if number is None else {"wavemesh": {"execution_count": number}}
        return Cell(self, content, metadata).run()

    def ask(self, msg_type, content, limit=ASSIST_LIMIT):
        """The reply to a short question such as completion, or None if the kernel is not there or is slow."""
        end = time.monotonic() + limit
        if not self._answers(end):
            return None
        request = self._send("shell", msg_type, content)
        while (left := end - time.monotonic()) > 0:
            for channel in self._poll(("shell", "iopub"), left * 1000):
                message = self._receive(channel)
                if channel == "shell" and is_child(message, request):
                    return message["content"]
                if channel == "iopub":
                    self.screen.show(message)
        return None

    def tell(self, msg_type, content, buffers=None):
        """Passes on a message that has no reply (comm_msg), and shows what comes of it."""
        if not (self._ready and self.is_alive()):
            return
        request = self._send("shell", msg_type, content, buffers)
        idle, end = False, time.monotonic() + ASSIST_LIMIT
        while not idle and time.monotonic() < end:
            for channel in self._poll(("iopub",), POLL_MS):
                message = self._receive(channel)
                idle |= is_idle(message, request)
                self.screen.show(message)

    def _send(self, channel, msg_type, content, buffers=None, metadata=None):
        session = self._manager.session
        sent = session.send(self._sockets[channel], msg_type, content, buffers=buffers, metadata=metadata)
        return sent["header"]["msg_id"]

    def _receive(self, channel):
        _, message = self._manager.session.recv(self._sockets[channel], mode=0)
        return message

    def _poll(self, channels, milliseconds):
        poller = zmq.Poller()
        for channel in channels:
            poller.register(self._sockets[channel], zmq.POLLIN)
        ready = dict(poller.poll(max(milliseconds, 0)))
        return [channel for channel in channels if self._sockets[channel] in ready]


class Cell:
    """One execution, from request to idle."""

    def __init__(self, kernel, content, metadata):
        self.kernel = kernel
        self.content = content
        self.metadata = metadata
        self.interrupts = 0
        self.passed_on = 0
        self.reply = None
        self.error = None
        self.result = None
        self.idle = False

    def run(self):
        kernel = self.kernel
        with interrupts_counted(self):
            self.request = kernel._send("shell", "execute_request", self.content, metadata=self.metadata)
            checked = time.monotonic()
            while not (self.idle and self.reply):
                # What the cell shows comes before what it asks, and both before its end.
                waiting = kernel._poll(("iopub", "stdin", "shell"), POLL_MS)
                for channel in waiting:
                    getattr(self, "_" + channel)(kernel._receive(channel))
                self._pass_interrupt_on()
                if not waiting and time.monotonic() - checked > ALIVE_EVERY:
                    checked = time.monotonic()
                    if not kernel.is_alive():
                        kernel._died()
        return self._outcome()

    def _iopub(self, message):
        if is_child(message, self.request):
            kind, content = message["msg_type"], message["content"]
            if is_idle(message, self.request):
                self.idle = True
            elif kind == "error":
                self.error = content
            elif kind == "execute_result":
                self._show_result_as_display()
                self.result = content
            else:
                self.kernel.screen.show(message)
        else:
            # A thread that an earlier cell left running.
            self.kernel.screen.show(message)

    def _show_result_as_display(self):
        if self.result is not None:
            self.kernel.screen.display(self.result)

    def _shell(self, message):
        if is_child(message, self.request):
            self.reply = message["content"]

    def _stdin(self, message):
        if message["msg_type"] != "input_request":
            return
        with interrupts_raised(self):
            try:
                value = self.kernel.screen.ask(message["content"].get("prompt", ""), message["content"].get("password", False))
            except KeyboardInterrupt:
                self.interrupts += 1
                value = ""
            except EOFError:
                value = "\x04"
        if self.interrupts == self.passed_on:
            self.kernel._send("stdin", "input_reply", {"value": value, "status": "ok"})

    def _pass_interrupt_on(self):
        if self.interrupts == self.passed_on:
            return
        self.passed_on = self.interrupts
        self.kernel.interrupt()
        if self.interrupts == 2:
            self.kernel.screen.warn("The Rust cell is still stopping. Interrupt once more to leave it behind.\n")
        if self.interrupts > 2:
            raise RustInterrupted("the Rust cell has not stopped and runs on; `%rust restart` ends it (all variables are lost)")

    def _outcome(self):
        if self.error is not None or self.reply.get("status") == "error":
            self._show_result_as_display()
            raise error_of_cell(self.error or self.reply)
        if self.reply.get("status") in ("abort", "aborted"):
            raise RustInterrupted("the Rust kernel did not run this cell, because the cell before it failed; run it again")
        if self.interrupts:
            self._show_result_as_display()
            raise RustInterrupted("interrupted; the Rust cell had already come to its end")
        return self.result


@contextmanager
def interrupts_counted(cell):
    """Ctrl-C or the stop button is counted and raises nothing, so that the cell's messages are read to the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def count(_signal, _frame):
        cell.interrupts += 1

    cell.python_handler = signal.signal(signal.SIGINT, count)
    cell.counting_handler = count
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, cell.python_handler)


@contextmanager
def interrupts_raised(cell):
    """Inside this context an interrupt raises again, so that a wait for input ends."""
    handler = getattr(cell, "python_handler", None)
    if handler is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, cell.counting_handler)


def is_child(message, request):
    """Whether the message answers the request with this id."""
    return message["parent_header"].get("msg_id") == request


def is_idle(message, request):
    """Whether the message says that all of the request's output has been sent."""
    return message["msg_type"] == "status" and message["content"].get("execution_state") == "idle" and is_child(message, request)


def new_manager(specs, folder):
    """A manager for the kernel of `specs`, with its sockets in `folder`, which only this user may enter."""
    manager = KernelManager(
        kernel_name=NAME,
        kernel_spec_manager=specs,
        connection_file=os.path.join(folder, "connection.json"),
    )
    if hasattr(zmq, "has") and zmq.has("ipc") and len(folder) + len("/socket") <= UNIX_PATH_LIMIT:
        manager.transport = "ipc"
        manager.ip = os.path.join(folder, "socket")
    return manager


def start_process(manager, log):
    """Runs on the manager's thread. The output of the process itself goes to `log`; the output of cells does not."""
    with open(log, "ab") as file:
        manager.start_kernel(stdout=file, stderr=file)


def stop_process(manager):
    """Runs on the manager's thread. Asks the kernel to end, then uses force."""
    if manager.has_kernel:
        manager.shutdown_kernel(now=False)
    else:
        manager.cleanup_resources()
