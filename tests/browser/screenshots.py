"""Takes the pictures of docs/displays.md: `bash tests/browser/run.sh screenshots` (after a change of looks; look at them)."""

import json
import os
import pathlib
import shutil
import subprocess

from conftest import CHROMIUM, DRAWN, GALLERY, Desk
from playwright import sync_api as playwright

IMAGES = pathlib.Path(__file__).parents[2] / "docs/images/displays"
# These displays are pictures already.
PICTURES = ["voxel_plot", "mesh_plot", "slice_grid", "contact_sheet", "shape_sheet", "live_plot", "plot", "figure"]
PAGES = ["dataset", "tensor", "tensor_rank4", "tensor_small", "sparse", "wavelet", "sdf", "mesh", "model", "diffusion", "backend", "error", "voxel_viewer", "voxel_sequence", "mesh_viewer", "point_viewer"]
DARK = ["tensor", "sparse", "voxel_viewer"]


def live_frames(gallery):
    """The output of `gallery --live` while it runs: the HTML of its bars, update by update."""
    environment = os.environ | {"WAVEMESH_FRAME_TOKEN": "t"}
    done = subprocess.run([gallery, "--live"], env=environment, capture_output=True, check=True, timeout=60)
    for frame in done.stdout.split(b"\x1b_WMSH:t:")[1:]:
        length, rest = frame.split(b"\n", 1)
        html = json.loads(rest[: int(length)])["content"]["data"].get("text/html", "")
        if html:
            yield html


def main():
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        shutil.copy(GALLERY / f"{name}.png", IMAGES)
    # Two bars; the inner one is half done.
    bars = [html for html in live_frames(GALLERY.parent / "release/examples/gallery") if html.count("%</span>") == 2]
    (GALLERY / "progress.html").write_text(bars[len(bars) * 5 // 8])
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, timeout=60_000, args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"])
        for name, dark in [(name, False) for name in [*PAGES, "progress"]] + [(name, True) for name in DARK]:
            desk = Desk(browser)
            page = desk.show(name, dark=dark, style="body{margin:0}.output{display:inline-block;padding:8px}")
            page.wait_for_function(DRAWN)
            if name == "voxel_viewer":
                page.evaluate("() => { document.querySelector('details').open = true; }")
                box = page.locator("[data-stage]").bounding_box()
                page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.55 * box["height"])
                page.wait_for_function("() => document.querySelector('[data-wavemesh]').wavemesh.hover()")
            if name == "voxel_sequence":
                page.evaluate("() => { const i = document.querySelector('input[type=range]'); i.value = 4; i.dispatchEvent(new Event('input')); }")
            page.wait_for_timeout(300)
            page.locator(".output").screenshot(path=IMAGES / f"{name}{'_dark' if dark else ''}.png")
            desk.context.close()
        browser.close()


main()
