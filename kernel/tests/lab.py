"""A JupyterLab of one's own and hands in it, for the tests and for the animation of the front page."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# How to start it.
BROWSER = {"executable_path": CHROMIUM, "args": ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]}

# A kernel may be busy with its first compile, on a busy machine.
PATIENCE = 120_000


def notebook(*sources, kernel="wavemesh"):
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate(sources)
    ]
    spec = {"display_name": "Rust (WaveMesh)", "language": "rust", "name": kernel}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": spec, "language_info": {"name": "rust"}}, "nbformat": 4, "nbformat_minor": 5})


@contextlib.contextmanager
def serve(folder, home):
    """Runs a server for the notebooks of a folder, with settings of its own below `home`; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(home / "config"), "HOME": str(home)}
    real = os.path.expanduser("~")
    environment.setdefault("CARGO_HOME", f"{real}/.cargo")
    environment.setdefault("RUSTUP_HOME", f"{real}/.rustup")
    environment.setdefault("XDG_DATA_HOME", f"{real}/.local/share")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    with open(home / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/api")
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError((home / "server.log").read_text())
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def show(page, url):
    """Opens a notebook and waits for its kernel."""
    page.goto(url)
    page.wait_for_function(
        """() => {
            const widget = window.jupyterapp?.shell.currentWidget;
            return widget?.sessionContext?.session?.kernel?.status === 'idle';
        }"""
    )


def command(page, name):
    page.evaluate(f"() => void window.jupyterapp.commands.execute('{name}')")


def until_idle(page, count):
    page.wait_for_function(
        """count => {
            const widget = window.jupyterapp.shell.currentWidget;
            return widget.sessionContext.session.kernel.status === 'idle' &&
                widget.content.widgets.filter(cell => cell.model.executionCount).length >= count &&
                widget.content.widgets.every(cell => cell.model.executionState !== 'running');
        }""",
        arg=count,
    )
