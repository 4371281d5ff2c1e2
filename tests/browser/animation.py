"""Makes the animation of the front page: `bash tests/browser/run.sh animation` (on an idle machine; look at it).

A short notebook runs in JupyterLab, and pictures of the page are taken while it runs. Each stays in the animation as long as it stood on the page, but no
longer than LONGEST, so waits of a busy machine do not show: the animation says nothing about speed. Writes docs/images/live.webp and, to look at, every tenth
picture into a folder `animation` of the target folder.
"""

import base64
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "kernel/tests"))

from lab import BROWSER, command, notebook, serve, show  # noqa: E402
from PIL import Image  # noqa: E402
from playwright import sync_api as playwright  # noqa: E402

SIZE = {"width": 900, "height": 680}
LARGEST = 2_000_000
# Seconds from one picture to the next.
PACE = 0.1
LONGEST = 0.13

CELLS = [
    """use wavemesh::prelude::*;

let mesh = Mesh::load("bunny.obj")?;
let sdf = SdfGrid::from_mesh(&mesh, 64)?;
sdf.encode(&WaveletConfig::new().level(2))?""",
    """let device = best_device()?;
let x = sdf.encode(&WaveletConfig::new().level(2))?.to_sparse_tensor(&device)?;
let config = UNetConfig::plain(x.channels(), x.channels(), &[16, 32]);
let unet = WaveMeshUNet::seeded(&config, 0, &device)?;
let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &device)?;
let weights = unet.parameters().map(|(_, var)| var.clone()).collect();
let mut optimizer = AdamW::new(AdamWConfig::default(), weights)?;

let mut curve = LivePlot::new("noise that it does not guess").smooth(0.9).size(640, 240);
for _ in notebook::progress(0..120).label("training") {
    let loss = diffusion.training_loss(&unet, &x, &LossOptions::default())?.loss;
    optimizer.backward_step(&loss, 2e-3)?;
    curve.push("loss", loss.to_scalar::<f32>()?);
}
curve""",
    """let threshold = notebook::slider("threshold", 0.01f32..=0.25).step(0.01);
notebook::interact(&threshold, move |threshold| {
    let kept = sdf.encode(&WaveletConfig::new().level(2).threshold(threshold))?;
    let title = format!("{} of 262,144 coefficients", kept.len());
    let plot = MeshPlot::new(&kept.decode()?.to_mesh()?).up(Axis::Y);
    Ok::<_, Error>(plot.title(title).size(460, 360))
})""",
]


class Film:
    """Pictures of a page, each with the seconds that it stays."""

    def __init__(self, page):
        self.page = page
        self.session = page.context.new_cdp_session(page)
        self.pictures = []

    def shoot(self, stays=None):
        """Takes a picture, which stays until the next one unless something else is said."""
        at = time.monotonic()
        png = self.session.send("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": True})["data"]
        picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
        rest = PACE - (time.monotonic() - at)
        if rest > 0:
            self.page.wait_for_timeout(1000 * rest)
        self.pictures.append((picture, stays or min(time.monotonic() - at, LONGEST)))

    def until_ran(self, count):
        """Takes pictures until so many cells have run and the kernel is idle."""
        ran = """count => {
            const widget = window.jupyterapp.shell.currentWidget, cells = widget.content.widgets;
            return widget.sessionContext.session.kernel.status === 'idle' &&
                cells.filter(cell => cell.model.executionCount).length === count && cells.every(cell => cell.model.executionState !== 'running');
        }"""
        end = time.monotonic() + 120
        while not self.page.evaluate(ran, count):
            assert time.monotonic() < end, "a cell does not end"
            self.shoot()

    def save(self, path, samples):
        """Equal pictures become one."""
        frames, durations = [], []
        for picture, stays in self.pictures:
            if frames and picture.tobytes() == frames[-1].tobytes():
                durations[-1] = max(durations[-1], stays)
            else:
                frames.append(picture)
                durations.append(stays)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=[round(1000 * seconds) for seconds in durations], loop=0,
                       lossless=True, quality=90, method=4, minimize_size=False, allow_mixed=False)
        shutil.rmtree(samples, ignore_errors=True)
        samples.mkdir(parents=True)
        for number in [*range(0, len(frames), 10), len(frames) - 1]:
            frames[number].save(samples / f"{number:03}.png")
        return len(frames), sum(durations)


def settings(home):
    """No news, no panels beside the notebook, no cells that are left out while they are out of sight."""
    for name, values in {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
        "notebook-extension/panel": {"toolbar": []},
        "statusbar-extension/plugin": {"visible": False},
    }.items():
        file = home / f"config/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))


def scroll_to(page, number):
    """Puts a cell below the toolbar."""
    page.evaluate(
        """number => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = number;
            const cell = notebook.widgets[number].node, panel = cell.closest('.jp-WindowedPanel-outer');
            panel.scrollTop += cell.getBoundingClientRect().top - panel.getBoundingClientRect().top;
        }""",
        number,
    )


def play(page):
    film = Film(page)
    for number in range(len(CELLS)):
        scroll_to(page, number)
        film.shoot(stays=1.5)
        command(page, "notebook:run-cell")
        film.until_ran(number + 1)
        scroll_to(page, number)
        film.shoot(stays=2.0)
    # To and fro, a step at a time.
    handle = page.locator(".noUi-handle")
    for key, steps in [("ArrowRight", 24), ("ArrowLeft", 20)]:
        for _ in range(steps):
            handle.press(key)
            film.shoot()
        page.wait_for_timeout(2000)
        film.shoot(stays=2.0)
    return film


def main():
    kernel, target = os.environ["WAVEMESH_KERNEL"], pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        folder, home, prefix = place / "notebooks", place / "home", place / "prefix"
        folder.mkdir()
        settings(home)
        shutil.copy(ROOT / "notebooks/meshes/bunny.obj", folder)
        (folder / "live.ipynb").write_text(notebook(*CELLS))
        subprocess.run([kernel, "install", "--prefix", str(prefix)], check=True, capture_output=True)
        os.environ["JUPYTER_PATH"] = str(prefix / "share/jupyter")
        os.environ["WAVEMESH_HISTORY"] = str(place / "history.jsonl")
        with serve(folder, home) as url, playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(**BROWSER)
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(120_000)
            show(page, f"{url}/doc/tree/live.ipynb?reset")
            for side in ["left", "right"]:
                page.evaluate("side => window.jupyterapp.commands.execute('application:toggle-side-tabbar', { side })", side)
            page.wait_for_timeout(2000)
            film = play(page)
            errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count()
            browser.close()
        assert not errors, "a cell has failed"
    path = ROOT / "docs/images/live.webp"
    frames, seconds = film.save(path, target / "animation")
    print(f"{path}: {frames} pictures, {seconds:.1f} s, {path.stat().st_size:,} B; some of them are in {target / 'animation'}")
    assert path.stat().st_size < LARGEST, f"more than {LARGEST:,} B"


main()
