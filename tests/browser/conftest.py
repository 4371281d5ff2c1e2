"""Displays in a real browser: headless Chromium, on plain pages and in JupyterLab, with the network cut off.

`gallery` (examples/gallery.rs) has written every display into $WAVEMESH_GALLERY; run.sh in this folder does that first.
"""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from playwright import sync_api as playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GALLERY = pathlib.Path(os.environ["WAVEMESH_GALLERY"])
# Every wait ends: a view that does not appear is a failure, not a test that hangs.
PATIENCE = 20_000

DRAWN = "() => [...document.querySelectorAll('[data-wavemesh]')].every(root => root.wavemesh?.drawn() > 0)"


@pytest.fixture(scope="session")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, timeout=60_000,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield browser
        browser.close()


class Desk:
    """A browser window that records its errors and its network requests."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(viewport={"width": 900, "height": 800}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if "WebGL" in message.text else None)
        self.page.on("request", lambda request: self.requests.append(request.url) if request.url.startswith("http") else None)

    def show(self, *names, dark=False, style=""):
        """A plain page with these displays, opened without any network."""
        self.context.set_offline(True)
        paper, ink = ("#111317", "#d7dbe2") if dark else ("#fff", "#222")
        outputs = "".join(f"<div class=output>{(GALLERY / f'{name}.html').read_text()}</div>" for name in names)
        self.page.set_content(f"<!doctype html><meta charset=utf-8><style>body{{background:{paper};color:{ink}}}{style}</style>{outputs}")
        return self.page


@pytest.fixture
def desk(browser, request):
    desk = Desk(browser, **getattr(request, "param", {}))
    yield desk
    desk.context.close()
    assert desk.errors == []


@pytest.fixture(scope="session")
def look(browser):
    """The number of colours of a screenshot, and the mean colour of its corner."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)

    def look(png):
        return page.evaluate(
            """async data => {
                const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + data)).blob());
                const g = new OffscreenCanvas(image.width, image.height).getContext('2d');
                g.drawImage(image, 0, 0);
                const pixels = new Uint32Array(g.getImageData(0, 0, image.width, image.height).data.buffer);
                return { colors: new Set(pixels).size, corner: [...g.getImageData(3, image.height - 4, 1, 1).data].slice(0, 3) };
            }""",
            base64.b64encode(png).decode(),
        )

    yield look
    page.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab, and a function that opens saved, trusted outputs in it."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # No questions before the notebook opens.
    settings = home / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}')
    environment = os.environ | {"HOME": str(home), "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    with open(home / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, (home / "server.log").read_text()
                time.sleep(0.3)

        def open_saved(desk, *names):
            cells = []
            for number, name in enumerate(names):
                data = {"text/html": (GALLERY / f"{name}.html").read_text(), "text/plain": (GALLERY / f"{name}.txt").read_text()}
                output = {"output_type": "display_data", "data": data, "metadata": {}}
                cells.append({"cell_type": "code", "id": f"c{number}", "metadata": {}, "execution_count": 1, "outputs": [output], "source": name})
            spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
            path = folder / f"{names[0]}_{len(names)}.ipynb"
            path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}))
            subprocess.run([sys.executable, "-m", "jupyter", "trust", str(path)], env=environment, check=True, timeout=60, capture_output=True)
            # Only the server itself can be reached.
            desk.context.route(lambda address: not address.startswith(url), lambda route: route.abort())
            desk.page.goto(f"{url}/lab/tree/{path.name}?reset", timeout=60_000)
            # JupyterLab adds the outputs of a long notebook to the page one after the other.
            desk.page.wait_for_function("n => document.querySelectorAll('.jp-Notebook [data-wavemesh]').length === n", arg=len(names), timeout=40_000)
            return desk.page

        yield open_saved
    finally:
        process.terminate()
        try:
            process.wait(timeout=8)
        except subprocess.TimeoutExpired:
            process.kill()
