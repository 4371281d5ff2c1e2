"""VS Code's Jupyter extension starts kernels itself: it writes the connection file, takes the command from the kernelspec, waits until the
ports are in use, and stops and ends the kernel with its own messages or signals."""

import json
import os
import socket
import subprocess
import time
import uuid

import pytest
from jupyter_client import BlockingKernelClient

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()


def is_used(port):
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def started(installed, tmp_path):
    """The process and a client of a kernel that was started in this way, in the notebook's folder."""
    spec = json.loads((installed / "share" / "jupyter" / "kernels" / "wavemesh" / "kernel.json").read_text())
    ports = free_ports(len(PORTS))
    file = tmp_path / f"kernel-v2-{os.getpid()}abc.json"
    connection = {"ip": "127.0.0.1", "transport": "tcp", "key": str(uuid.uuid4()), "signature_scheme": "hmac-sha256"}
    file.write_text(json.dumps({**connection, "kernel_id": str(uuid.uuid4()), **dict(zip(PORTS, ports))}))
    notebook = tmp_path / "my notes"
    notebook.mkdir()
    (notebook / "data.txt").write_text("beside")
    command = [part.replace("{connection_file}", str(file)) for part in spec["argv"]]
    process = subprocess.Popen(command, cwd=notebook, env={**os.environ, **spec.get("env", {})}, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not all(map(is_used, ports)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield spec, process, client
    client.stop_channels()
    process.kill()
    process.wait()


def run(client, code):
    texts = []

    def note(message):
        if message["msg_type"] in ("stream", "execute_result"):
            texts.append(message["content"].get("text") or message["content"]["data"]["text/plain"])

    reply = client.execute_interactive(code, output_hook=note, timeout=120)
    return reply["content"], "".join(texts)


def test_it_runs_cells_in_the_notebooks_folder_and_completes(started):
    _, _, client = started
    assert run(client, 'std::fs::read_to_string("data.txt")?')[1] == '"beside"'
    # Completion while a name is typed; positions are counted in characters.
    code = 'let größe = 1; std::fs::read_to_str'
    reply = client.complete(code, len(code), reply=True, timeout=60)["content"]
    assert "read_to_string" in [match.split("(")[0].rsplit("::")[-1] for match in reply["matches"]], reply
    assert reply["cursor_end"] == len(code)


def test_it_stops_a_cell_as_the_kernelspec_says(started):
    spec, _, client = started
    assert spec["interrupt_mode"] == "message"
    msg_id = client.execute('println!("begun"); loop { std::thread::sleep(std::time::Duration::from_secs(1)); }')
    while client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass
    message = client.session.msg("interrupt_request", {})
    client.control_channel.send(message)
    assert client.get_control_msg(timeout=60)["content"]["status"] == "ok"
    while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != msg_id:
        pass
    assert reply["content"]["ename"] == "Interrupted"
    assert run(client, "1 + 1")[1] == "2"


@pytest.mark.parametrize("how", ["message", "signal"])
def test_its_end_leaves_no_process(started, how):
    _, process, client = started
    child = int(run(client, "std::process::id()")[1])
    if how == "message":
        client.shutdown()
    else:
        process.terminate()
    process.wait(timeout=60)
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{child}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
