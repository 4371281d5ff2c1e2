"""kernel/setup.sh on machines that lack something: its messages, and that it leaves nothing half-installed."""

import hashlib
import http.server
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.sh"
TOOLS = ["bash", "cat", "cmp", "cp", "cut", "dirname", "env", "mkdir", "mktemp", "mv", "nice", "rm", "sed", "sh", "tail", "uname"]


@pytest.fixture
def slim(tmp_path):
    """Runs set-up with a PATH that has little more than the shell, in an empty home."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def program(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    python = subprocess.run(["python3", "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=True)
    (folder / "python3").symlink_to(python.stdout.strip())
    program("cc", "exit 0")
    home = tmp_path / "home"
    home.mkdir()

    def run(*arguments, **environment):
        # A port where nobody listens simulates a machine without network.
        variables = {"HOME": str(home), "PATH": str(folder), "RUSTUP_UPDATE_ROOT": "http://127.0.0.1:9"} | environment
        command = ["bash", str(SETUP), *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    run.home, run.folder, run.program = home, folder, program
    return run


def files(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]


def test_without_a_linker(slim):
    (slim.folder / "cc").unlink()
    done = slim()
    assert done.returncode == 1 and "no C linker" in done.stderr and "build-essential" in done.stderr
    assert files(slim.home) == []


def test_without_python(slim):
    (slim.folder / "python3").unlink()
    done = slim()
    assert done.returncode == 1 and "no python3" in done.stderr and files(slim.home) == []


def test_with_an_old_python(slim):
    (slim.folder / "python3").unlink()
    slim.program("python3", 'case $1 in -V) echo "Python 3.9.2" ;; *) exit 1 ;; esac')
    done = slim()
    assert done.returncode == 1 and "Python 3.9.2 is too old" in done.stderr and "3.10" in done.stderr


def test_without_rust_and_without_network(slim):
    done = slim()
    assert done.returncode == 1
    assert "rustup-init could not be downloaded" in done.stderr and "RUSTUP_UPDATE_ROOT" in done.stderr
    assert files(slim.home) == []


def test_where_nothing_can_be_written(slim, tmp_path):
    (tmp_path / "file").write_text("")
    done = slim(XDG_DATA_HOME=str(tmp_path / "file"))
    assert done.returncode == 1 and "cannot write to" in done.stderr and "XDG_DATA_HOME" in done.stderr


@pytest.fixture
def mirror(tmp_path):
    """A rustup mirror on this machine. Its installer brings a `rustup` that prints its arguments and has no toolchain."""
    installer = b"""#!/bin/sh
mkdir -p "$HOME/.cargo/bin"
printf '#!/bin/sh\\necho "rustup $*"\\nexit 1\\n' > "$HOME/.cargo/bin/rustup"
/bin/chmod +x "$HOME/.cargo/bin/rustup"
"""
    folder = tmp_path / "mirror" / "dist" / f"{os.uname().machine}-unknown-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "rustup-init").write_bytes(installer)
    (folder / "rustup-init.sha256").write_text(hashlib.sha256(installer).hexdigest() + "  rustup-init\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "mirror"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_rustup_is_fetched_and_asked_for_the_pinned_toolchain(slim, mirror):
    url, _ = mirror
    done = slim(RUSTUP_UPDATE_ROOT=url)
    pinned = (SETUP.parents[1] / "rust-toolchain.toml").read_text().split('"')[1]
    assert f"rustup toolchain install {pinned} --profile minimal" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1 and f"Rust {pinned} could not be installed" in done.stderr


# As cargo does: a bar that ends in a carriage return, and lines.
CARGO_SAYS = (
    "    Fetch [==>   ] 2 complete; 1 pending\\r    Blocking waiting for file lock on package cache\\n"
    "   Compiling serde v1.0.0\\n    Building [==>      ] 3/10: serde, tokio(build)\\r"
    "warning: something is odd\\n    Building [=======> ] 9/10: tokio\\r    Finished\\n"
)


@pytest.fixture
def compiled(slim, tmp_path):
    """Set-up with Rust present and a cargo that makes a kernel at once and records its calls; returns these calls too."""
    pinned = (SETUP.parents[1] / "rust-toolchain.toml").read_text().split('"')[1]
    slim.program("rustc", f'echo "rustc {pinned} (of a test)"')
    kernel = '"$CARGO_TARGET_DIR/release/wavemesh-kernel"'  # the target folder is the kernel's own
    slim.program(
        "cargo",
        '[ "$1" != fetch ] || exit 0\n'
        'mkdir -p "$CARGO_TARGET_DIR/release"\n'
        f"printf '{CARGO_SAYS}' >&2\n"
        f"printf '#!/bin/sh\\necho \"$*\" >> \"$HOME/calls\"\\n' > {kernel}\n{shutil.which('chmod')} +x {kernel}",
    )

    def run(*arguments):
        (slim.home / "calls").unlink(missing_ok=True)
        # The test must not find a toolkit of this machine.
        done = slim("--no-jupyter", *arguments, CARGO_TARGET_DIR=str(tmp_path / "target"), CUDA_HOME=str(tmp_path / "none"))
        calls = (slim.home / "calls").read_text().splitlines() if (slim.home / "calls").exists() else []
        return done, [call for call in calls if call.startswith("library build")]

    return run


def test_the_library_for_gpus_is_compiled_beside_the_other(slim, compiled):
    slim.program("nvcc", "exit 0")
    done, builds = compiled("--cuda")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [build.endswith(" --cuda") for build in builds] == [False, True], builds
    assert "NVIDIA GPUs" in done.stdout


def test_it_says_what_it_will_do_and_how_far_it_is(slim, compiled):
    done, _ = compiled("--no-cuda")
    assert done.stdout.index("Set-up compiles the kernel and the library") < done.stdout.index("compiling the kernel"), done.stdout
    assert "warning: something is odd\n" in done.stdout
    assert "Fetch [" not in done.stdout and "Blocking" not in done.stdout, done.stdout
    assert "Building [" not in done.stdout and "Compiling serde" not in done.stdout, "there is no terminal"
    reader, terminal = os.openpty()
    variables = {"HOME": str(slim.home), "PATH": str(slim.folder), "CARGO_TARGET_DIR": str(slim.home / "target")}
    subprocess.run(["bash", str(SETUP), "--no-jupyter", "--no-cuda"], env=variables, stdout=terminal, timeout=120, check=True)
    os.close(terminal)
    said = ""
    while (read := read_terminal(reader)):
        said += read
    # If memory is enough for both at once, the progress of the library is shown, which takes longer.
    assert re.search(r"(Kernel|Library): 3 of 10 parts compiled, now serde, tokio\(build\)", said), said
    assert re.search("(Kernel|Library): 9 of 10", said), said


def read_terminal(reader):
    """The text that is left to read; a terminal whose other end is closed reports an error."""
    try:
        return os.read(reader, 4096).decode()
    except OSError:
        return ""


def test_without_the_library_for_gpus(slim, compiled):
    slim.program("nvcc", "exit 0")
    done, builds = compiled("--no-cuda")
    assert done.returncode == 0 and len(builds) == 1 and "--cuda" not in builds[0], builds
    assert "GPU" not in done.stdout


def test_a_gpu_that_cells_will_not_use_is_told_with_the_line_that_changes_it(slim, compiled):
    slim.program("nvidia-smi", "exit 0")
    done, builds = compiled()
    assert done.returncode == 0 and len(builds) == 1 and "--cuda" not in builds[0], builds
    assert "nvcc, which compiles for it, is missing" in done.stdout, done.stdout
    assert "cuda_toolkit.sh" in done.stdout and "setup.sh --cuda" in done.stdout, done.stdout


def test_where_driver_and_nvcc_are_found_the_library_for_gpus_is_compiled(slim, compiled):
    slim.program("nvidia-smi", "exit 0")
    slim.program("nvcc", "exit 0")
    done, builds = compiled()
    assert done.returncode == 0 and [build.endswith(" --cuda") for build in builds] == [False, True], builds


def test_without_nvcc_the_library_for_gpus_is_refused_with_the_way_to_get_it(compiled):
    done, builds = compiled("--cuda")
    assert done.returncode == 1 and builds == []
    assert "--cuda needs nvcc" in done.stderr and "cuda_toolkit.sh" in done.stderr


def test_a_damaged_installer_is_not_run(slim, mirror):
    url, folder = mirror
    (folder / "rustup-init").write_text("#!/bin/sh\ntouch $HOME/was-run\n")
    done = slim(RUSTUP_UPDATE_ROOT=url)
    assert done.returncode == 1 and "came damaged" in done.stderr and files(slim.home) == []


def test_an_interrupted_setup_leaves_nothing_half_installed(tmp_path):
    """Ctrl-C while cargo compiles (a cargo that never ends simulates this)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    pinned = (SETUP.parents[1] / "rust-toolchain.toml").read_text().split('"')[1]
    for name, text in [("cargo", f"touch {tmp_path}/compiling; sleep 60"), ("rustc", f'echo "rustc {pinned} (0 2000-01-01)"')]:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    variables = {"HOME": str(home), "PATH": f"{folder}:{os.environ['PATH']}", "CARGO_TARGET_DIR": str(tmp_path / "target")}
    command = ["bash", str(SETUP), "--no-jupyter"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Programs that a script starts in the background ignore Ctrl-C, and so do their children; programs of a terminal do not.
    heed = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, env=variables, **pipes, **heed) as setup:
        deadline = time.monotonic() + 30
        while not (tmp_path / "compiling").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(setup.pid, signal.SIGINT)
        said = setup.communicate(timeout=30)
    assert setup.returncode == 130 and "interrupted" in said[0], said
    assert files(home) == []


def test_the_private_environment_has_numpy_and_this_checkouts_extension(slim, compiled, tmp_path):
    (slim.folder / "python3").unlink()
    slim.program(
        "python3",
        'case "$1 $2" in\n'
        '"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; exit ;;\n'
        '"-m pip") echo "$*" >> "$HOME/pip"; exit ;;\n'
        "esac\n"
        'case "$2" in\n'
        '*sysconfig*) mkdir -p "$HOME/site" && echo "$HOME/site" ;;\n'
        "*jupyterlab*) exit 1 ;;\n"
        "esac",
    )
    for _ in range(2):  # the second time the environment exists
        done = slim("--no-notebook", CARGO_TARGET_DIR=str(tmp_path / "target"), CUDA_HOME=str(tmp_path / "none"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert (slim.home / "site/wavemesh_kernel.pth").read_text() == f"{SETUP.parent}/python/src\n"
    requirements = (SETUP.parent / "requirements.txt").read_text()
    assert (slim.home / "pip").read_text().count(f"-r {SETUP.parent}/requirements.txt") == 1 and "numpy" in requirements
