"""A reader's actions in the real JupyterLab, in headless Chromium: restart and run all, an error, the stop button, completion, a tooltip,
displays."""

import os
import time

import pytest
from lab import BROWSER, CHROMIUM, PATIENCE, command, notebook, serve, show, until_idle
from playwright import sync_api as playwright

if not CHROMIUM:
    if os.environ.get("CI") == "true":
        raise RuntimeError("there is no Chromium to test JupyterLab in; install it or set CHROMIUM")
    pytest.skip("SKIPPED: there is no Chromium to test JupyterLab in", allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory, installed):
    folder = tmp_path_factory.mktemp("lab")
    with serve(folder, tmp_path_factory.mktemp("home")) as url:
        yield url, folder


@pytest.fixture
def page(server):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(**BROWSER)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(PATIENCE)
        yield page
        if os.environ.get("WAVEMESH_SCREENSHOTS"):
            name = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0]
            page.screenshot(path=f"{os.environ['WAVEMESH_SCREENSHOTS']}/{name}.png")
        browser.close()


def open_notebook(page, server, name, *sources, **metadata):
    url, folder = server
    (folder / f"{name}.ipynb").write_text(notebook(*sources, **metadata))
    show(page, f"{url}/lab/tree/{name}.ipynb?reset")


def outputs(page):
    """The text below each cell."""
    return page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.widgets].map(cell =>
            cell.model.outputs.toJSON().map(o =>
                o.output_type === 'stream' ? [].concat(o.text).join('') :
                o.output_type === 'error' ? 'error: ' + o.evalue : [].concat(o.data['text/plain']).join('')).join('|'))"""
    )


def counts(page):
    return page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.executionCount)")


def until_error(page):
    page.wait_for_function(
        """() => window.jupyterapp.shell.currentWidget.content.widgets.some(cell =>
            cell.model.outputs.toJSON().some(output => output.output_type === 'error'))"""
    )


def test_restart_and_run_all(page, server):
    open_notebook(page, server, "all", "let n = 20;", 'println!("{}", n + 1);', "n * 2")
    for _ in range(2):
        command(page, "notebook:restart-run-all")
        page.click(".jp-Dialog button.jp-mod-accept")
        page.wait_for_selector(".jp-Dialog", state="detached")
        until_idle(page, 3)
        assert outputs(page) == ["", "21\n", "40"]
        # Counts start from one again: it was a fresh kernel.
        assert counts(page) == [1, 2, 3]
    # The code is coloured as Rust.
    assert page.locator(".jp-CodeCell .cm-line span", has_text="let").count() > 0


def test_a_notebook_of_another_rust_kernel_opens_by_its_language(page, server):
    open_notebook(page, server, "language", "6 * 7", kernel="rust")
    command(page, "notebook:run-cell")
    until_idle(page, 1)
    assert outputs(page) == ["42"]


def test_an_error_stops_run_all(page, server):
    open_notebook(page, server, "error", "1 + 1", 'panic!("on purpose")', '3 + 3')
    command(page, "notebook:run-all-cells")
    until_error(page)
    until_idle(page, 2)
    first, second, third = outputs(page)
    assert first == "2" and second.startswith("error: ") and "on purpose" in second and third == ""
    assert counts(page) == [1, 2, None]


def test_the_stop_button_stops(page, server):
    open_notebook(page, server, "stop", 'println!("begun"); loop { std::thread::sleep(std::time::Duration::from_millis(5)); }', "7 * 6")
    command(page, "notebook:run-cell")
    page.wait_for_function("() => document.querySelector('.jp-OutputArea-output')?.textContent.includes('begun')")
    command(page, "notebook:interrupt-kernel")
    until_error(page)
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    command(page, "notebook:run-cell")
    page.wait_for_function("() => [...document.querySelectorAll('.jp-OutputArea-output')].some(o => o.textContent.trim() === '42')")


def test_tab_completes_with_types_and_shift_tab_explains(page, server):
    open_notebook(page, server, "names", "let tensor = Tensor::full(1f32, (3, 4), &Device::Cpu)?;", "tensor.resha")
    command(page, "notebook:run-cell-and-select-next")
    until_idle(page, 1)
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    command(page, "notebook:enter-edit-mode")
    page.wait_for_function("() => document.activeElement?.classList.contains('cm-content')")
    page.keyboard.press("End")
    # The kernel learns the names of a new library in the background.
    deadline = time.monotonic() + 120
    while True:
        page.keyboard.press("Tab")
        page.wait_for_timeout(1000)
        if "tensor.reshape" in page.locator(".cm-content").last.inner_text() or page.locator(".jp-Completer-item").count():
            break
        assert time.monotonic() < deadline, "no suggestion came"
    if page.locator(".jp-Completer-item").count():
        page.keyboard.press("Enter")
    page.wait_for_function("() => [...document.querySelectorAll('.cm-content')].pop().textContent.includes('tensor.reshape')")
    page.keyboard.press("Shift+Tab")
    # The tooltip opens first and gets its text then.
    page.wait_for_function(
        "signature => document.querySelector('.jp-Tooltip')?.innerText.includes(signature)",
        arg="pub fn reshape<S>(&self, s: S) -> Result<Tensor, Error>",
    )


SLIDER = """let torus = shapes::torus(0.5, 0.25).to_grid(32)?;
let level = notebook::slider("level", -0.1f32..=0.1).value(0.0).step(0.02);
notebook::interact(&level, move |level| {
    Ok::<_, Error>(MeshPlot::new(&wavemesh::sdf::marching_cubes(&torus, level)?).size(300, 220))
})"""


def test_a_slider_that_is_moved_draws_anew(page, server):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_notebook(page, server, "slider", SLIDER, "level.get()")
    command(page, "notebook:run-cell-and-select-next")
    page.wait_for_selector(".jupyter-widgets .widget-readout")
    picture = "document.querySelector('.jupyter-widgets.widget-html img')?.src"
    page.wait_for_function(f"() => {picture}")
    before = page.evaluate(f"() => {picture}")
    assert page.locator(".widget-readout").inner_text() == "0.00"
    page.locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function(f"before => {picture} !== before", arg=before)
    assert page.locator(".widget-readout").inner_text() == "0.02"
    if os.environ.get("WAVEMESH_SCREENSHOTS"):
        # The picture in docs/displays.md.
        page.locator(".jp-CodeCell").first.screenshot(path=f"{os.environ['WAVEMESH_SCREENSHOTS']}/slider.png")
    # A user who moves a slider has its cell selected.
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    command(page, "notebook:run-cell")
    page.wait_for_function("() => [...document.querySelectorAll('.jp-OutputArea-output')].some(o => o.textContent.trim() === '0.02')")
    assert not errors


BRICK = """let brick = Tensor::arange(1f32, 193.0, &Device::Cpu)?.reshape((4, 6, 8))?; // (z, y, x)
VoxelViewer::new(&brick)?.size(420, 320)"""
MESH = "MeshViewer::new(&shapes::sphere(0.8).to_mesh(24)?).size(420, 320)"
LIVE = """let mut curve = LivePlot::new("fit");
for step in progress(0..40).label("steps") {
    curve.push("loss", 1.0 / (1.0 + step as f64));
    std::thread::sleep(std::time::Duration::from_millis(40));
    while step == 20 && !std::path::Path::new("seen").exists() {
        std::thread::sleep(std::time::Duration::from_millis(40));
    }
}
curve"""


def test_displays_move_while_the_cell_runs_and_answer_to_the_mouse(page, server):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_notebook(page, server, "displays", BRICK, MESH, LIVE, "brick")
    for _ in range(2):
        command(page, "notebook:run-cell-and-select-next")
    until_idle(page, 2)
    # A bar and a curve appear before the cell ends, which waits for the page to show them, and exist once each at the end.
    command(page, "notebook:run-cell-and-select-next")
    page.wait_for_function(
        """() => {
            const widget = window.jupyterapp.shell.currentWidget, shown = widget.content.widgets[2].outputArea.node;
            return widget.sessionContext.session.kernel.status === 'busy' && /\\b[1-9]\\d?%/.test(shown.innerText) && shown.querySelector('img');
        }"""
    )
    (server[1] / "seen").touch()
    command(page, "notebook:run-cell")
    until_idle(page, 4)
    _, _, live, card = outputs(page)
    bar, curve = live.split("|fit | ")
    assert "100%" in bar and "40/40" in bar and curve == "loss 0.02500 at step 39"
    assert card.startswith("Tensor[4, 6, 8] | f32")

    page.add_script_tag(content="""
        const view = n => document.querySelectorAll('[data-wavemesh]')[n]?.wavemesh;
        const colours = n => {
            const c = view(n).snapshot(), pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            return new Set(new Uint32Array(pixels.buffer)).size;
        };
        // The voxel at the corner of the brick that is nearest to the eye, and the middle of it on the stage.
        const nearest = () => {
            const { eye } = view(0).camera(), site = [7, 5, 3].map((last, i) => eye[i] > (last + 1) / 2 ? last : 0);
            return { site, at: view(0).project(site.map(v => v + .5)) };
        };""")
    stages = page.locator("[data-stage]")
    for number in (1, 0):
        stages.nth(number).scroll_into_view_if_needed()
        page.wait_for_function("n => view(n)?.isActive() && view(n).idle()", arg=number)
        assert page.evaluate("n => colours(n)", number) > 100
    box = stages.first.bounding_box()

    def point_at_the_corner():
        corner = page.evaluate("() => nearest()")
        page.mouse.move(box["x"] + corner["at"][0], box["y"] + corner["at"][1])
        page.wait_for_function("site => String(view(0).hover()?.hit.site) === String(site)", arg=corner["site"], timeout=10_000)
        x, y, z = corner["site"]
        assert abs(page.evaluate("() => view(0).hover().hit.value") - (1 + x + 8 * (y + 6 * z))) < 0.01
        return corner["site"]

    before = point_at_the_corner()
    azimuth = page.evaluate("() => view(0).state.az")
    page.mouse.move(box["x"] + 60, box["y"] + 160)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 160, steps=4)
    page.mouse.up()
    page.wait_for_function("() => view(0).idle()")
    assert abs(page.evaluate("() => view(0).state.az") - azimuth + 90) < 1
    assert point_at_the_corner() != before
    # Cut in half.
    page.locator("details").first.evaluate("details => { details.open = true; }")
    page.get_by_label("x to", exact=True).first.evaluate("(input) => { input.value = 4; input.dispatchEvent(new Event('input')); }")
    page.wait_for_function("() => view(0).idle() && view(0).visible().kept === 96")
    # Out of sight, the view releases its context.
    page.evaluate("() => { window.first = view(0); window.gl = first.canvas().getContext('webgl2'); }")
    page.evaluate("() => { const panel = document.querySelector('.jp-WindowedPanel-outer'); panel.scrollTop = panel.scrollHeight; }")
    page.wait_for_function("() => !first.isActive() && gl.isContextLost()")
    assert errors == []
