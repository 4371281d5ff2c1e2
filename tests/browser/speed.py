"""What a large viewer costs a browser: `bash tests/browser/run.sh speed`, the table of docs/displays.md.

Headless Chromium here draws with the processor, so its frames a second say nothing of a graphics card. What a page does for a frame
does not depend on that: the time of its JavaScript, the bytes it uploads and the corners that it has drawn.
"""

import subprocess
import sys
import time

from conftest import CHROMIUM, Desk
from playwright import sync_api as playwright

VIEW = "document.querySelector('[data-wavemesh]').wavemesh"

# Counts the data that goes to WebGL, and times the code that runs in animation frames.
METER = """
window.meter = { corners: 0, bytes: 0, script: 0, frames: 0 };
const gl = WebGL2RenderingContext.prototype;
const count = (name, corners) => { const call = gl[name]; gl[name] = function (...a) { meter.corners += corners(a); return call.apply(this, a); }; };
count('drawArrays', a => a[2]);
count('drawArraysInstanced', a => a[2] * a[3]);
count('drawElements', a => a[1]);
const upload = (name, data) => { const call = gl[name]; gl[name] = function (...a) { meter.bytes += a[data]?.byteLength || 0; return call.apply(this, a); }; };
upload('bufferData', 1);
upload('texImage2D', 8);
const animate = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = f => animate(t => { const start = performance.now(); f(t); meter.script += performance.now() - start; meter.frames++; });
"""

# Makes the view redraw by a key, again and again, and waits for the pixels of each frame.
REDRAW = """async ([frames, key]) => {
    const view = document.querySelector('[data-wavemesh]').wavemesh, canvas = view.canvas(), gl = canvas.getContext('webgl2');
    Object.assign(meter, { corners: 0, bytes: 0, script: 0, frames: 0 });
    const start = performance.now(), drawn = view.drawn();
    for (let i = 0; i < frames; i++) {
        const before = view.drawn();
        canvas.dispatchEvent(new KeyboardEvent('keydown', { key }));
        while (view.drawn() === before) await new Promise(done => setTimeout(done, 0));
        gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    }
    const n = view.drawn() - drawn;
    return { all: (performance.now() - start) / n, script: meter.script / n, corners: meter.corners / n, bytes: meter.bytes / n };
}"""


def measure(browser, gallery, voxels):
    html = subprocess.run([gallery, "--voxels", str(voxels)], capture_output=True, check=True, timeout=120).stdout.decode()
    desk = Desk(browser)
    page = desk.page
    page.add_init_script(METER)
    page.set_default_timeout(120_000)
    page.goto("about:blank")
    start = time.perf_counter()
    page.set_content(f"<!doctype html><meta charset=utf-8><body>{html}", wait_until="commit")
    page.wait_for_function(f"() => {VIEW}?.drawn() > 0")
    page.evaluate(f"() => {{ const gl = {VIEW}.canvas().getContext('webgl2'); gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); }}")
    first = time.perf_counter() - start
    note = page.locator("[data-note]").inner_text()
    # A view that nobody touches draws nothing.
    page.evaluate("() => { meter.frames = 0; }")
    page.wait_for_timeout(1000)
    assert page.evaluate("() => meter.frames") == 0, "the view draws though nothing changes"
    # Outlines off and on: the whole picture is drawn again.
    whole = page.evaluate(REDRAW, [2, "o"])
    # The first frames show the view how fast the machine is.
    page.evaluate(REDRAW, [5, "ArrowLeft"])
    turning = page.evaluate(REDRAW, [10, "ArrowLeft"])
    page.wait_for_function(f"() => {VIEW}.idle()")
    page.evaluate(f"() => {{ {VIEW}.state.alpha = .5; }}")
    glass = page.evaluate(REDRAW, [2, "o"])
    page.evaluate(f"() => {{ {VIEW}.state.alpha = 1; }}")
    clipped = page.evaluate(
        f"""async () => {{
            const view = {VIEW}, start = performance.now();
            meter.script = 0;
            view.state.clip[0][1] = view.meta.high[0] / 2;
            const before = view.drawn();
            view.change();
            while (view.drawn() === before) await new Promise(done => setTimeout(done, 0));
            return meter.script;
        }}"""
    )
    assert desk.errors == [], desk.errors
    desk.context.close()
    return note, len(html), first, whole, turning, glass, clipped


def main():
    gallery = sys.argv[1]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, timeout=60_000, args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"])
        print("| voxels | output | first picture | corners a frame | uploaded a frame | script a frame: turning | half transparent | after a new clip | a frame drawn by the processor | while turning |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for voxels in [1_000, 10_000, 100_000, 1_000_000]:
            note, size, first, whole, turning, glass, clipped = measure(browser, gallery, voxels)
            cells = [note.split(" of ")[1].split(" ")[0], f"{size / 1000:,.0f} kB", f"{first:.1f} s", f"{whole['corners']:,.0f}", f"{whole['bytes'] / 1000:.1f} kB",
                     f"{turning['script']:.1f} ms", f"{glass['script']:.0f} ms", f"{clipped:.0f} ms", f"{whole['all']:.0f} ms", f"{turning['all']:.0f} ms"]
            print(f"| {' | '.join(cells)} |", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
