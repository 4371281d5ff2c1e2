"""Interrupt, restart, shutdown, and frontends that disappear."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from driver import Kernel

ENDLESS = 'println!("begun"); let mut i = 0u64; loop { i = std::hint::black_box(i + 1); }'


def gone(process, seconds=10):
    try:
        process.wait(timeout=seconds)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        return False
    return True


def test_an_interrupt_stops_a_cell_that_never_checks(kernel):
    kernel.value("fn survives() -> i32 { 11 }")
    msg_id = kernel.send(ENDLESS)
    waiting = kernel.send("1")
    kernel.wait_until_running(msg_id)
    kernel.manager.interrupt_kernel()
    reply = kernel.shell(msg_id)["content"]
    assert reply["status"] == "error" and reply["ename"]
    assert kernel.shell(waiting)["content"]["status"] == "aborted"
    assert kernel.value("survives()") == "11"


def test_an_interrupt_of_an_idle_kernel_does_nothing(kernel):
    kernel.value("let untouched = 5;")
    for _ in range(3):
        assert kernel.control("interrupt_request")["content"]["status"] == "ok"
    assert kernel.value("untouched") == "5"


def test_sigint_is_an_interrupt(fresh):
    msg_id = fresh.send(ENDLESS)
    fresh.wait_until_running(msg_id)
    os.kill(fresh.process.pid, signal.SIGINT)
    assert fresh.shell(msg_id, timeout=20)["content"]["status"] == "error"
    assert fresh.value("1 + 1") == "2"


def test_a_cell_that_waits_for_input_can_be_interrupted(fresh):
    msg_id = fresh.send("let mut line = String::new(); std::io::stdin().read_line(&mut line)?; line", allow_stdin=True)
    fresh.client.get_stdin_msg(timeout=60)
    fresh.manager.interrupt_kernel()
    fresh.shell(msg_id, timeout=20)
    assert fresh.value("1 + 1") == "2"


@pytest.mark.parametrize("grace", [0, 0.5])
def test_a_stop_by_force_leaves_the_next_process_alone(fresh, grace):
    """Each interrupt has a separate grace period; those of the later interrupts end while the process is replaced."""
    fresh.run(f":grace {grace}")
    for _ in range(6):
        msg_id = fresh.send(ENDLESS)
        fresh.wait_until_running(msg_id)
        for _ in range(300):
            fresh.client.control_channel.send(fresh.client.session.msg("interrupt_request", {}))
            time.sleep(0.0003)
        fresh.control("interrupt_request")
        assert fresh.shell(msg_id, timeout=20)["content"]["ename"] == "Interrupted"
        fresh.silence()
        assert fresh.value("1 + 1") == "2"


def test_a_stop_that_comes_when_the_code_has_run_costs_nothing(fresh):
    """The code ends within the grace period; none of the expressions after it is compiled."""
    fresh.value("let kept = 5;")
    code = 'println!("begun"); std::thread::sleep(std::time::Duration::from_secs(1));'
    msg_id = fresh.send(code, user_expressions={f"wrong{i}": "no_such_name" for i in range(20)})
    fresh.wait_until_running(msg_id)
    fresh.manager.interrupt_kernel()
    assert fresh.shell(msg_id)["content"]["ename"] == "Interrupted"
    fresh.silence()
    assert fresh.value("kept") == "5"


def test_a_shell_command_that_must_be_stopped_by_force_costs_no_variable(fresh):
    fresh.value("let kept = 5;")
    msg_id = fresh.send("!trap '' TERM; echo begun; sleep 60")
    fresh.wait_until_running(msg_id)
    fresh.manager.interrupt_kernel()
    assert fresh.shell(msg_id, timeout=20)["content"]["status"] == "error"
    assert fresh.value("kept") == "5"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_restart_forgets_and_works(transport):
    with Kernel(transport=transport) as kernel:
        kernel.value("let forgotten = 1;")
        before = kernel.process
        kernel.client.stop_channels()
        kernel.manager.restart_kernel()
        kernel.connect()
        assert gone(before, 1)
        assert kernel.run("forgotten").status == "error"
        assert kernel.value("2 + 2") == "4"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_killed_kernel_can_be_started_again_at_the_same_place(transport):
    with Kernel(transport=transport) as kernel:
        kernel.process.kill()
        kernel.client.stop_channels()
        kernel.manager.restart_kernel(now=True)
        kernel.connect()
        assert kernel.value("2 + 2") == "4"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_shutdown_is_answered_and_leaves_nothing(transport):
    kernel = Kernel(transport=transport)
    kernel.__enter__()
    kernel.value("1")
    process = kernel.process
    family = [process, *process.children(recursive=True)]
    info = kernel.connection()
    reply = kernel.control("shutdown_request", {"restart": False}, timeout=10)["content"]
    assert reply == {"status": "ok", "restart": False}
    broadcast = None
    while broadcast is None or broadcast["msg_type"] != "shutdown_reply":
        broadcast = kernel.client.get_iopub_msg(timeout=10)
    assert all(gone(member) for member in family)
    if transport == "ipc":
        assert not any(os.path.exists(f"{info['ip']}-{info[f'{name}_port']}") for name in ["shell", "iopub", "stdin", "control", "hb"])
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_shutdown_ends_a_running_cell(fresh):
    msg_id = fresh.send(ENDLESS)
    fresh.wait_until_running(msg_id)
    family = [fresh.process, *fresh.process.children(recursive=True)]
    fresh.control("shutdown_request", {"restart": False}, timeout=10)
    assert all(gone(member) for member in family)


def test_sigterm_ends_the_kernel_and_its_child(fresh):
    fresh.value("1")
    family = [fresh.process, *fresh.process.children(recursive=True)]
    assert len(family) > 1
    fresh.process.terminate()
    assert all(gone(member) for member in family)


def test_the_kernel_ends_with_the_frontend_that_started_it(tmp_path):
    """A killed frontend cannot say goodbye."""
    script = tmp_path / "frontend.py"
    script.write_text(
        "from jupyter_client import KernelManager\n"
        "import time\n"
        "m = KernelManager(kernel_name='wavemesh'); m.start_kernel()\n"
        "c = m.client(); c.start_channels(); c.wait_for_ready(timeout=30)\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    frontend = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert frontend.stdout.readline() == "ready\n"
    family = psutil.Process(frontend.pid).children(recursive=True)
    assert family
    frontend.kill()
    frontend.wait()
    assert all(gone(member) for member in family)


def test_a_library_that_is_made_anew_under_a_running_kernel_is_named(tmp_path):
    home = tmp_path / "wavemesh"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    shutil.copytree(data / "wavemesh", home, symlinks=True, ignore=shutil.ignore_patterns("venv"))
    with Kernel(env={**os.environ, "XDG_DATA_HOME": str(tmp_path)}) as kernel:
        assert kernel.value("fn one() -> u8 { 1 }\none()") == "1"
        (library,) = home.glob("*/lib/libwavemesh_dylib*.so")
        library.unlink()
        library.write_bytes(b"")
        error = kernel.run("one() + 1").error
        assert "restart the kernel" in error["traceback"][-1], error
