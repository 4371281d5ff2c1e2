"""Finding and fetching the compiler. A local server stands in for the network, and a script for rustup-init."""

import functools
import hashlib
import http.server
import threading

import pytest

from wavemesh_kernel import toolchain
from wavemesh_kernel.errors import RustKernelMissing

VERSION = "rustc 1.95.0 (59807616e 2026-04-14)\nrelease: 1.95.0"

# What rustup-init does as far as we can see it: a toolchain's folder appears in RUSTUP_HOME.
RUSTUP_INIT = """#!/bin/sh
echo "$@" > "$RUSTUP_HOME.arguments"
bin=$RUSTUP_HOME/toolchains/1.95.0-x86_64-unknown-linux-gnu/bin
mkdir -p "$bin"
printf '#!/bin/sh\\ncat <<END\\n%s\\nEND\\n' '{version}' > "$bin/rustc"
cp "$bin/rustc" "$bin/cargo"
chmod +x "$bin/rustc" "$bin/cargo"
"""


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A machine without Rust."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RUSTUP_HOME", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def server(tmp_path, monkeypatch):
    """static.rust-lang.org, on this machine: a folder to put files in."""
    folder = tmp_path / "server"
    files = folder / "dist" / toolchain.HOST
    files.mkdir(parents=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        monkeypatch.setattr(toolchain, "RUSTUP_ROOT", f"http://127.0.0.1:{listening.server_port}")
        yield files
        listening.shutdown()


def offer(files, text, sha256=None):
    (files / "rustup-init").write_text(text)
    digest = sha256 or hashlib.sha256(text.encode()).hexdigest()
    (files / "rustup-init.sha256").write_text(f"{digest} *rustup-init\n")


def fake_toolchain(folder, version):
    for name in ("rustc", "cargo"):
        program = folder / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<END\n{version}\nEND\n")
        program.chmod(0o755)


def test_a_fetched_toolchain_is_found_again(alone, server):
    offer(server, RUSTUP_INIT.format(version=VERSION))
    data, said = alone / "data", []
    data.mkdir()
    fetched = toolchain.fetch("1.95.0", data, said.append)
    assert fetched.version == VERSION and fetched.release() == "1.95.0"
    assert (fetched.folder / "bin/rustc").exists() and data in fetched.folder.parents
    assert toolchain.find(VERSION, data) == fetched
    assert "Fetching Rust 1.95.0" in said[-1]
    assert not (alone / "home").exists(), "rustup must not touch the user's home"


def test_rustup_is_asked_for_the_minimal_profile_and_to_leave_the_path_alone(alone, server):
    offer(server, RUSTUP_INIT.format(version=VERSION))
    toolchain.fetch("1.95.0", alone, lambda _: None)
    arguments = (alone / "toolchain/rustup.arguments").read_text().split()
    assert {"-y", "--no-modify-path", "minimal", "1.95.0"} <= set(arguments)


def test_without_network_the_error_says_what_to_do_and_nothing_is_left(alone, monkeypatch):
    monkeypatch.setattr(toolchain, "RUSTUP_ROOT", "http://127.0.0.1:9")
    with pytest.raises(RustKernelMissing, match="could not be downloaded.*refused(.|\n)*RUSTUP_UPDATE_ROOT"):
        toolchain.fetch("1.95.0", alone, lambda _: None)
    assert list(alone.iterdir()) == []


def test_a_damaged_download_is_not_run(alone, server):
    offer(server, "#!/bin/sh\ntouch /tmp/must-not-run\n", sha256="0" * 64)
    with pytest.raises(RustKernelMissing, match="SHA-256"):
        toolchain.fetch("1.95.0", alone, lambda _: None)
    assert not (alone / "toolchain").exists()


def test_rustups_own_failure_is_passed_on(alone, server):
    offer(server, "#!/bin/sh\necho 'error: no release found for 1.95.0'\nexit 1\n")
    with pytest.raises(RustKernelMissing, match="no release found"):
        toolchain.fetch("1.95.0", alone, lambda _: None)
    assert not (alone / "toolchain").exists()


def test_a_toolchain_of_the_users_rustup_serves_if_it_is_the_same_commit(alone, monkeypatch):
    rustup = alone / "rustup"
    fake_toolchain(rustup / "toolchains/stable", VERSION)
    fake_toolchain(rustup / "toolchains/nightly", VERSION.replace("59807616e", "000000000"))
    monkeypatch.setenv("RUSTUP_HOME", str(rustup))
    found = toolchain.find(VERSION, alone / "data")
    assert found.folder == rustup / "toolchains/stable"
    assert found.environment()["PATH"].startswith(str(found.folder / "bin"))


def test_only_a_rust_that_is_new_enough_can_make_do(alone, monkeypatch):
    rustup = alone / "rustup"
    fake_toolchain(rustup / "toolchains/old", "rustc 1.70.0 (x)")
    monkeypatch.setenv("RUSTUP_HOME", str(rustup))
    assert toolchain.find_any(alone / "data") is None
    fake_toolchain(rustup / "toolchains/new", "rustc 1.97.0-nightly (y)")
    assert toolchain.find_any(alone / "data").release() == "1.97.0-nightly"
