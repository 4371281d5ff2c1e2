"""The wheel in the programs people run notebooks with: nbconvert, papermill, Notebook 7's server and a kernel gateway, in their current releases.

JupyterLab has its own tests, in `kernel/tests`.
"""

import contextlib
import json
import os
import socket as socketlib
import subprocess
import sys
import time
import urllib.request
import uuid

import nbformat
import pytest
import websocket
from colab import NOWHERE, PASSED_ON, RUST, needed
from test_colab import SETUP

BIN = os.path.dirname(sys.executable)


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """A home folder, the wheel, and the kernelspec that came with it."""
    folder = tmp_path_factory.mktemp("frontends")
    packages = needed("WAVEMESH_PACKAGE")
    (wheel,) = packages.glob("*.whl")
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(command, check=True, capture_output=True)
    home = folder / "home"
    home.mkdir()
    return {key: os.environ[key] for key in PASSED_ON if key in os.environ} | {
        "HOME": str(home),
        "PATH": f"{BIN}:/usr/bin:/bin",
        "RUSTUP_HOME": str(RUST),
        "RUSTUP_UPDATE_ROOT": NOWHERE,
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": str(site),
        "JUPYTER_PATH": str(site / "share/jupyter"),
    }


def written(path, kernel, *cells):
    """A notebook on disk."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    languages = {"wavemesh": "rust", "python3": "python"}
    book.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": languages[kernel]}
    nbformat.write(book, path)
    return path


def shown(path):
    """The text of the last cell's value in an executed notebook."""
    outputs = nbformat.read(path, as_version=4).cells[-1].outputs
    return outputs[-1].data["text/plain"]


@pytest.mark.parametrize("kernel", ["python3", "wavemesh"])
def test_nbconvert_executes_a_notebook(env, tmp_path, kernel):
    path = written(tmp_path / "a.ipynb", kernel, SETUP, "let x = 6;", "x * 7")
    command = ["jupyter-nbconvert", "--to", "notebook", "--execute", "--inplace", path]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert shown(path) == "42"


def test_nbconvert_stops_at_an_error_of_rust(env, tmp_path):
    path = written(tmp_path / "a.ipynb", "python3", SETUP, 'panic!("ouch")', "1")
    command = ["jupyter-nbconvert", "--to", "notebook", "--execute", "--inplace", path]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode != 0 and "ouch" in done.stderr


def test_papermill_gives_parameters_to_python_and_python_to_rust(env, tmp_path):
    path = written(tmp_path / "a.ipynb", "python3", SETUP, "%rust_push resolution", "resolution * 2")
    subprocess.run(["papermill", path, tmp_path / "b.ipynb", "-p", "resolution", "21"], env=env, check=True, capture_output=True)
    assert shown(tmp_path / "b.ipynb") == "42"


def test_papermill_runs_the_rust_kernel(env, tmp_path):
    path = written(tmp_path / "a.ipynb", "wavemesh", SETUP, "6 * 7")
    subprocess.run(["papermill", path, tmp_path / "b.ipynb"], env=env, check=True, capture_output=True)
    assert shown(tmp_path / "b.ipynb") == "42"


DEFAULTS = """let steps: u16 = 10; // how many
let count = 3;
let rate = 0.5;
let name = String::from("nobody");
let title = "none";
let scales = vec![1.0f32];
let sizes = [8, 8];
let on = false;
let limit: Option<usize> = None;
let folder = std::path::PathBuf::from("a");
let half = steps / 2;
const WIDTH: usize = 4;"""
USED = """let numbers: (u16, i32, f64, Vec<f32>, [i32; 2], Option<usize>, u16, [u8; WIDTH], i32) =
    (steps, count, rate, scales, sizes, limit, half, [0; WIDTH], added);
let others: (String, &str, bool, std::path::PathBuf) = (name, title, on, folder);
println!("{numbers:?}\\n{others:?}");"""


def test_papermill_gives_parameters_to_rust_cells(env, tmp_path):
    path = written(tmp_path / "a.ipynb", "wavemesh", DEFAULTS, USED)
    book = nbformat.read(path, as_version=4)
    book.cells[0].metadata.tags = ["parameters"]
    nbformat.write(book, path)
    (tmp_path / "a.yaml").write_text("sizes: [1, 2]\nlimit: 5\nfolder: b\nhalf: 6\nWIDTH: 2\n")
    given = [
        ("steps", "21"),
        ("count", "4"),
        ("rate", "2"),
        ("name", 'say "hi"'),
        ("title", "b"),
        ("scales", "[1, 2.5]"),
        ("on", "True"),
        ("added", "7"),
    ]
    arguments = [part for name, value in given for part in ("-p", name, value)]
    command = ["papermill", path, tmp_path / "b.ipynb", *arguments, "-f", tmp_path / "a.yaml"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    printed = nbformat.read(tmp_path / "b.ipynb", as_version=4).cells[-1].outputs[-1].text
    assert printed == '(21, 4, 2.0, [1.0, 2.5], [1, 2], Some(5), 6, [0, 0], 7)\n("say \\"hi\\"", "b", true, "b")\n'

    listed = subprocess.run(["papermill", path, "--help-notebook"], env=env, check=True, capture_output=True, text=True).stdout
    assert "steps: u16 (default 10)" in listed and "how many" in listed
    command = ["papermill", path, tmp_path / "c.ipynb", "-p", "steps", "-1"]
    failed = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert failed.returncode != 0 and "the parameter `steps`: -1 does not fit into u16" in failed.stderr


@contextlib.contextmanager
def serving(env, folder, *arguments):
    """Notebook 7's server; gives a function that asks its REST interface."""
    token = uuid.uuid4().hex
    command = [
        "jupyter-notebook",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        f"--IdentityProvider.token={token}",
        *arguments,
    ]
    with subprocess.Popen(
        command, cwd=folder, env={**env, "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            end = time.monotonic() + 60
            while not (found := list(folder.glob("runtime/jpserver-*.json"))):
                assert process.poll() is None and time.monotonic() < end, "the server does not start"
                time.sleep(0.1)
            base = json.loads(found[0].read_text())["url"]

            def ask(path, content=None, method=None):
                data = None if content is None else json.dumps(content).encode()
                request = urllib.request.Request(base + path, data, {"Authorization": f"token {token}"}, method=method)
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.read()

            ask.socket = lambda path: websocket.create_connection(
                base.replace("http", "ws") + path, header=[f"Authorization: token {token}"], timeout=60
            )
            yield ask
        finally:
            process.terminate()


@pytest.fixture
def server(env, tmp_path):
    with serving(env, tmp_path) as server:
        yield server


def answers(server):
    """What a cell of a new Rust kernel prints and gives, through a server's sockets."""
    kernel = json.loads(server("api/kernels", {"name": "wavemesh"}))["id"]
    socket = server.socket(f"api/kernels/{kernel}/channels")
    header = {"msg_id": "1", "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.3", "date": ""}
    content = {"code": 'println!("hello");\n6 * 7', "silent": False, "allow_stdin": False}
    socket.send(json.dumps({"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}))
    got, end = {}, time.monotonic() + 300
    while not (got.get("status", {}).get("execution_state") == "idle" and "execute_reply" in got):
        message = json.loads(socket.recv())
        assert message["content"].get("execution_state") != "dead" and time.monotonic() < end, got
        if message["parent_header"].get("msg_id") == "1":
            got[message["msg_type"]] = message["content"]
    socket.close()
    server(f"api/kernels/{kernel}", method="DELETE")
    return got["stream"]["text"], got["execute_result"]["data"]["text/plain"]


def test_notebook_7_serves_the_rust_kernel(server):
    assert b"Jupyter Notebook" in server("tree")
    specs = json.loads(server("api/kernelspecs"))["kernelspecs"]
    assert specs["wavemesh"]["spec"]["display_name"] == "Rust (WaveMesh)"
    assert server(specs["wavemesh"]["resources"]["logo-svg"].lstrip("/")).lstrip().startswith(b"<")
    assert answers(server) == ("hello\n", "42")


def test_a_notebook_runs_in_a_kernel_of_another_machine_through_a_gateway(env, tmp_path):
    """`jupyter server --gateway-url`: the gateway's machine has the kernel, the notebook's has none."""
    token, log = uuid.uuid4().hex, tmp_path / "gateway.log"
    with socketlib.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["jupyter-kernelgateway", "--KernelGatewayApp.ip=127.0.0.1", f"--KernelGatewayApp.port={port}"]
    # A gateway passes on only the variables of its environment that it is told to.
    remote = {
        **env,
        "KG_AUTH_TOKEN": token,
        "KG_ENV_PROCESS_WHITELIST": ",".join(env),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "remote"),
    }
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as said, subprocess.Popen(command, env=remote, stderr=said) as gateway:
        try:
            end = time.monotonic() + 60
            while f"available at {url}" not in log.read_text():
                assert gateway.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            local = {key: value for key, value in env.items() if key not in ("JUPYTER_PATH", "PYTHONPATH")}
            with serving(local, tmp_path, f"--gateway-url={url}", f"--GatewayClient.auth_token={token}") as server:
                assert "wavemesh" in json.loads(server("api/kernelspecs"))["kernelspecs"]
                assert answers(server) == ("hello\n", "42")
        finally:
            gateway.terminate()
