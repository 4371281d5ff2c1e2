"""The Rust compiler for cells: found on this machine, or fetched with rustup into a private folder."""

import hashlib
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from .errors import RustKernelMissing

HOST = "x86_64-unknown-linux-gnu"
# rustup's own variable for a mirror, so that one setting serves both.
RUSTUP_ROOT = os.environ.get("RUSTUP_UPDATE_ROOT", "https://static.rust-lang.org/rustup").rstrip("/")
TIMEOUT = 30  # seconds without an answer from the network
OLDEST = (1, 95)  # that the library compiles with


class Toolchain(NamedTuple):
    """A toolchain's folder, which has `bin/rustc`, and what `rustc -Vv` says."""

    folder: Path
    version: str

    def release(self):
        """`1.95.0`"""
        return self.version.split()[1]

    def environment(self):
        """The variables that lead programs to this toolchain: PATH for most, the other for rustup's proxies."""
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": f"{self.folder / 'bin'}{os.pathsep}{path}", "RUSTUP_TOOLCHAIN": str(self.folder)}


def private_folder(data_home):
    """The folder of a fetched toolchain, apart from the user's own rustup."""
    return data_home / "toolchain"


def find(version, data_home):
    """The toolchain on this machine whose `rustc -Vv` is `version`, or None."""
    return next((toolchain for toolchain in installed(data_home) if toolchain.version == version), None)


def find_any(data_home):
    """The newest toolchain on this machine that can compile the library, or None."""
    able = [toolchain for toolchain in installed(data_home) if number(toolchain) >= OLDEST]
    return max(able, key=number, default=None)


def number(toolchain):
    """(1, 95)"""
    return tuple(int(part) for part in toolchain.release().split("-")[0].split(".")[:2])


def installed(data_home):
    """Every toolchain that can be seen: the private one, rustup's, and the one on the PATH."""
    rustup_home = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
    folders = [*private_folder(data_home).glob("rustup/toolchains/*"), *rustup_home.glob("toolchains/*")]
    rustc = shutil.which("rustc")
    if rustc is not None:
        folders.append(Path(output([rustc, "--print", "sysroot"]) or "/nonexistent"))
    for folder in folders:
        version = output([str(folder / "bin/rustc"), "-Vv"])
        if version and (folder / "bin/cargo").exists():
            yield Toolchain(folder, version)


def output(command):
    """What a program prints, or None if it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def fetch(release, data_home, say):
    """Installs the minimal toolchain `release` into the private folder, whole or not at all."""
    say(f"Fetching Rust {release} with rustup (once)…")
    folder = private_folder(data_home)
    partial = folder.with_name(".toolchain.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        rustup = partial / "rustup-init"
        rustup.write_bytes(download(release, f"{RUSTUP_ROOT}/dist/{HOST}/rustup-init"))
        rustup.chmod(0o755)
        command = [str(rustup), "-y", "--no-modify-path", "--profile", "minimal", "--default-toolchain", release]
        env = {**os.environ, "RUSTUP_HOME": str(partial / "rustup"), "CARGO_HOME": str(partial / "cargo")}
        env.pop("RUSTUP_TOOLCHAIN", None)
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            lines = [line.rstrip() for line in process.stdout]
        if process.returncode != 0:
            raise missing(release, "\n".join(lines[-5:]))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for toolchain in installed(data_home):
        if folder in toolchain.folder.parents and toolchain.release() == release:
            return toolchain
    raise missing(release, "rustup left no toolchain behind")


def download(release, url):
    """The bytes at `url`, which install `release`. They are checked against the SHA-256 at `url` + ".sha256"."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read()
        with urllib.request.urlopen(url + ".sha256", timeout=TIMEOUT) as answer:
            expected = answer.read().split()[0].decode()
    except (urllib.error.URLError, OSError, IndexError) as error:
        reason = getattr(error, "reason", error)
        raise missing(release, f"{url} could not be downloaded: {reason}") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise missing(release, f"{url} came damaged: its SHA-256 is not {expected}")
    return content


def missing(release, reason):
    """The error for a compiler that cannot be fetched. It says what to do."""
    return RustKernelMissing(
        f"Rust {release} is not on this machine and cannot be fetched: {reason}\n"
        "Check the network (behind a mirror, set RUSTUP_UPDATE_ROOT and RUSTUP_DIST_SERVER), "
        "or install Rust yourself (https://rustup.rs) and run this again."
    )
