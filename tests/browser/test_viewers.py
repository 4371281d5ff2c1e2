"""The interactive viewers: they draw, turn, clip, give values at the pointer, and release their resources out of sight."""

import math

import pytest
from conftest import DRAWN

VIEWERS = ["voxel_viewer", "voxel_sequence", "mesh_viewer", "mesh_values", "point_values"]
VIEW = "document.querySelector('[data-wavemesh]').wavemesh"


def shown(page):
    page.wait_for_function(DRAWN)
    return page.locator("[data-stage]").first


def picture(page):
    """What the first view shows once it has stopped moving."""
    page.wait_for_function(f"() => {VIEW}.idle()")
    return page.locator("[data-stage]").first.screenshot()


def controls(page):
    page.evaluate("() => document.querySelectorAll('details').forEach(details => details.open = true)")


def slide(page, name, value):
    page.get_by_label(name, exact=True).first.evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value)


def visible(page):
    """The number of voxels, or of corners of faces, on screen."""
    page.wait_for_function(f"() => {VIEW}.idle()")
    return page.evaluate(f"() => {VIEW}.visible().kept ?? {VIEW}.visible().n")


def drag(page, stage, dx, dy, start=(0.3, 0.5)):
    box = stage.bounding_box()
    x, y = box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()
    page.mouse.move(box["x"] + 2, box["y"] + 2)


def ring():
    """The voxels of the gallery's ring and their first channel, computed here."""
    voxels = {}
    for z in range(48):
        for y in range(48):
            for x in range(48):
                a, b, c = x - 23.5, y - 23.5, z - 23.5
                if abs(math.hypot(math.hypot(a, c) - 15, b) - 6.5) < 0.9:
                    voxels[x, y, z] = math.sin(3 * math.atan2(c, a)) + 0.1 * b
    return voxels


def first_hit(start, end, voxels):
    """The voxel that a ray meets first: where the ray enters each cube, by slabs."""
    nearest, found = math.inf, None
    direction = [e - s for s, e in zip(start, end)]
    for site in voxels:
        enter, leave = 0.0, math.inf
        for at, d, low in zip(start, direction, site):
            if abs(d) < 1e-12:
                continue
            a, b = sorted(((low - at) / d, (low + 1 - at) / d))
            enter, leave = max(enter, a), min(leave, b)
        if enter < leave and enter < nearest:
            nearest, found = enter, site
    return found


def check_draws_turns_and_clips(page, stage, look):
    first = picture(page)
    assert look(first)["colors"] > 200
    azimuth = page.evaluate(f"() => {VIEW}.state.az")
    drag(page, stage, 90, 30)
    assert page.evaluate(f"() => {VIEW}.state.az") == pytest.approx(azimuth - 45, abs=1)
    turned = picture(page)
    assert turned != first and look(turned)["colors"] > 200
    controls(page)
    whole = visible(page)
    low, high = page.evaluate(f"() => [{VIEW}.meta.low[0], {VIEW}.meta.high[0]]")
    slide(page, "x to", (low + high) / 2)
    clipped = picture(page)
    assert clipped != turned and look(clipped)["colors"] > 100
    if page.evaluate(f"() => {VIEW}.meta.kind") == "voxels":
        assert 0.2 * whole < visible(page) < 0.8 * whole
    slide(page, "x to", high)
    assert picture(page) == turned


@pytest.mark.parametrize("name", VIEWERS)
def test_a_viewer_draws_turns_on_drag_and_clips(desk, look, name):
    page = desk.show(name)
    check_draws_turns_and_clips(page, shown(page), look)
    assert desk.requests == []


def check_picks(page, stage, voxels):
    """Points at voxels all over the view. This test computes which voxel lies first on the ray through the pixel."""
    box = stage.bounding_box()
    tried = set()
    for site in sorted(voxels)[:: len(voxels) // 24]:
        x, y = page.evaluate(f"p => {VIEW}.project(p)", [v + 0.5 for v in site])
        page.mouse.move(box["x"] + x, box["y"] + y)
        near = "([x, y]) => { const h = %s.hover(); return h && Math.abs(h.x - x) <= 1 && Math.abs(h.y - y) <= 1; }" % VIEW
        page.wait_for_function(near, arg=[x, y], timeout=5000)
        hover, ray = page.evaluate(
            f"""() => {{
                const view = {VIEW}, hover = view.hover(), canvas = view.canvas(), ratio = canvas.width / canvas.clientWidth;
                const [u, v] = [(Math.floor(hover.x * ratio) + .5) / canvas.width * 2 - 1, 1 - (Math.floor(hover.y * ratio) + .5) / canvas.height * 2];
                const back = new DOMMatrix(view.camera().vp).inverse();
                const at = z => {{ const p = back.transformPoint(new DOMPoint(u, v, z, 1)); return [p.x / p.w, p.y / p.w, p.z / p.w]; }};
                return [{{ site: hover.hit.site, value: hover.hit.value }}, [at(-1), at(1)]];
            }}"""
        )
        expected = first_hit(*ray, voxels)
        assert tuple(hover["site"]) == expected
        # Sixteen bits over the channel's range.
        assert hover["value"] == pytest.approx(voxels[expected], abs=1e-4)
        tried.add(expected)
    assert len(tried) >= 15


def test_the_pointer_reads_the_voxel_below_it_also_after_turning(desk):
    page = desk.show("voxel_viewer")
    stage, voxels = shown(page), ring()
    assert page.evaluate(f"() => {VIEW}.frame().n") == len(voxels)
    check_picks(page, stage, voxels)
    drag(page, stage, -160, 60)
    check_picks(page, stage, voxels)
    # After clipping, the pointer meets what was behind.
    controls(page)
    slide(page, "z to", 24)
    picture(page)
    check_picks(page, stage, {site: value for site, value in voxels.items() if site[2] < 24})


def test_the_controls_change_what_is_shown(desk):
    page = desk.show("voxel_viewer")
    shown(page)
    controls(page)
    whole, before = visible(page), picture(page)
    slide(page, "value from", 0.5)
    assert 0.1 * whole < visible(page) < 0.9 * whole
    slide(page, "value from", 0)
    assert visible(page) == whole
    seen = {before}

    def changed():
        now = picture(page)
        assert now not in seen
        seen.add(now)

    page.get_by_label("channel").select_option(label="height")
    changed()
    page.get_by_label("colours").select_option(label="magma")
    changed()
    slide(page, "opacity", 0.4)
    changed()
    slide(page, "opacity", 1)
    page.get_by_role("button", name="outline").click()
    changed()
    slide(page, "size", 0.5)
    changed()
    page.get_by_role("button", name="perspective").click()
    changed()
    page.get_by_role("button", name="light / dark").click()
    changed()


def test_keyboard_wheel_and_reset(desk):
    page = desk.show("voxel_viewer", style="body{height:3000px}")
    stage = shown(page)
    box = stage.bounding_box()
    state = lambda: page.evaluate(f"() => {{ const s = {VIEW}.state; return [s.az, s.el, s.zoom, ...s.pan]; }}")
    home = state()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, 20)
    page.wait_for_function("() => scrollY > 0")
    assert state() == home, "before a click the wheel scrolls the page"
    page.evaluate("() => scrollTo(0, 0)")
    page.wait_for_function("() => scrollY === 0")
    page.mouse.click(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"zoom => {VIEW}.state.zoom > zoom", arg=home[2])
    assert page.evaluate("() => scrollY") == 0
    for key in ["ArrowLeft", "ArrowUp", "Shift+ArrowLeft", "+"]:
        before = state()
        page.keyboard.press(key)
        assert state() != before, key
    page.keyboard.press("r")
    assert state() == home


def test_the_pointer_reads_position_and_class_of_a_point(desk):
    page = desk.show("point_viewer")
    shown(page)
    picture(page)
    count, low, cell, classes = page.evaluate(f"() => [{VIEW}.frame().n, {VIEW}.meta.low, {VIEW}.meta.cell, {VIEW}.meta.classes]")
    assert count > 15_000 and classes == ["road", "car", "house", "pole"]
    seen = set()
    for k in range(0, count, count // 40):
        data = page.evaluate(f"k => [...{VIEW}.frame().at.slice(4 * k, 4 * k + 4)]", k)
        at = page.evaluate(f"p => {VIEW}.project(p)", [low[i] + data[i] * cell for i in range(3)])
        hit = page.evaluate(f"p => {VIEW}.pickAt(...p)", at)
        # The point itself, or one in front of it at the same pixels.
        assert hit and hit["label"] in classes
        assert page.evaluate(f"p => {VIEW}.project(p)", hit["point"]) == pytest.approx(at, abs=3)
        seen.add(hit["label"])
    assert len(seen) >= 3, seen


def test_values_of_points_can_be_cut_off(desk):
    page = desk.show("point_values")
    shown(page)
    controls(page)
    whole = picture(page)
    slide(page, "value from", 0.5)
    assert picture(page) != whole
    slide(page, "value from", 0)
    assert picture(page) == whole


@pytest.mark.parametrize("desk", [{"has_touch": True}], indirect=True)
def test_one_finger_turns_and_two_zoom(desk):
    page = desk.show("mesh_viewer")
    stage = shown(page)
    box = stage.bounding_box()
    hand = desk.context.new_cdp_session(page)

    def touch(kind, *points):
        at = [{"x": box["x"] + x, "y": box["y"] + y, "id": i} for i, (x, y) in enumerate(points)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    before = page.evaluate(f"() => [{VIEW}.state.az, {VIEW}.state.zoom]")
    touch("touchStart", (200, 200))
    touch("touchMove", (260, 200))
    touch("touchEnd")
    azimuth, zoom = page.evaluate(f"() => [{VIEW}.state.az, {VIEW}.state.zoom]")
    assert azimuth == pytest.approx(before[0] - 30, abs=1) and zoom == before[1]
    touch("touchStart", (200, 200), (300, 200))
    touch("touchMove", (150, 200), (350, 200))
    touch("touchEnd")
    assert page.evaluate(f"() => {VIEW}.state.zoom") == pytest.approx(2 * before[1], rel=0.1)


def test_a_sequence_plays_and_stops(desk):
    page = desk.show("voxel_sequence")
    shown(page)
    # It opens on the state that its picture shows: the last one.
    assert page.evaluate(f"() => {VIEW}.state.frame") == 7
    page.get_by_role("button", name="play").click()
    page.wait_for_function(f"() => 2 <= {VIEW}.state.frame && {VIEW}.state.frame < 7")
    page.get_by_role("button", name="pause").click()
    at = page.evaluate(f"() => {VIEW}.state.frame")
    before = picture(page)
    slide(page, "step", (at + 3) % 8)
    assert picture(page) != before
    assert page.evaluate(f"() => {VIEW}.state.frame") == (at + 3) % 8


def test_the_view_is_saved_as_a_png(desk):
    page = desk.show("voxel_viewer")
    shown(page)
    controls(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="save PNG").click()
    assert download.value.suggested_filename == "a ring.png"
    with open(download.value.path(), "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("dark", [False, True])
def test_the_view_follows_the_page(desk, look, dark):
    page = desk.show("mesh_viewer", dark=dark)
    shown(page)
    corner = look(picture(page))["corner"]
    assert all(c < 40 for c in corner) if dark else all(c > 240 for c in corner)


def test_full_screen_fills_the_screen_and_comes_back(desk):
    page = desk.show("voxel_viewer")
    stage = shown(page)
    before = stage.bounding_box()
    stage.click()
    page.keyboard.press("f")
    page.wait_for_function(f"width => document.fullscreenElement && document.querySelector('[data-stage]').clientWidth > width", arg=before["width"])
    box = page.evaluate("() => { const b = document.querySelector('[data-stage]').getBoundingClientRect(); return [b.bottom, innerHeight]; }")
    assert box[0] <= box[1]
    page.keyboard.press("f")
    page.wait_for_function("width => !document.fullscreenElement && document.querySelector('[data-stage]').clientWidth === width", arg=before["width"])


def test_out_of_sight_the_context_is_given_back_and_the_picture_stays(desk, look):
    page = desk.show("voxel_viewer", style="body{height:5000px}")
    stage = shown(page)
    drag(page, stage, 60, 0)
    page.evaluate(f"() => {{ window.gl = {VIEW}.canvas().getContext('webgl2'); }}")
    page.evaluate("() => scrollTo(0, 3000)")
    page.wait_for_function(f"() => !{VIEW}.isActive()")
    assert page.evaluate("() => gl.isContextLost()")
    assert page.locator("[data-stage] canvas").count() == 0
    page.evaluate(f"() => {{ document.querySelector('[data-stage] img').dataset.drawn = {VIEW}.drawn(); scrollTo(0, 0); }}")
    page.wait_for_function(f"() => {VIEW}.isActive() && {VIEW}.drawn() > document.querySelector('[data-stage] img').dataset.drawn")
    assert look(picture(page))["colors"] > 200


def test_an_output_that_is_removed_gives_its_context_back(desk):
    page = desk.show("voxel_viewer")
    shown(page)
    page.evaluate(f"() => {{ window.view = {VIEW}; window.gl = view.canvas().getContext('webgl2'); document.querySelector('.output').remove(); }}")
    page.wait_for_function("() => gl.isContextLost() && !view.isActive()")


def check_twenty(page, many):
    """Walks down a page of viewers: each draws when it comes into sight, and never more than eight at once."""
    roots = page.locator("[data-wavemesh]")
    assert roots.count() == many
    for number in list(range(many)) + [0]:
        roots.nth(number).locator("[data-stage]").scroll_into_view_if_needed()
        page.wait_for_function("n => { const v = document.querySelectorAll('[data-wavemesh]')[n].wavemesh; return v?.isActive() && v.drawn() > 0; }", arg=number)
        active = page.evaluate("() => [...document.querySelectorAll('[data-wavemesh]')].filter(root => root.wavemesh?.isActive()).length")
        assert 1 <= active <= 8


def test_twenty_viewers_on_one_page(desk):
    check_twenty(desk.show(*(["voxel_viewer", "voxel_sequence", "mesh_viewer", "mesh_values"] * 5)), 20)


@pytest.mark.parametrize("desk", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_picture_is_there(desk, look):
    page = desk.show("voxel_viewer")
    assert look(page.locator("[data-stage] img").screenshot())["colors"] > 100
    assert page.locator("details").count() == 0


@pytest.mark.timeout(180)  # JupyterLab starts in this time too, on processors that other tests use
def test_in_jupyterlab_viewers_pick_draw_turn_and_clip_without_a_network(desk, lab, look):
    page = lab(desk, "voxel_viewer", "mesh_viewer")
    stage = page.locator("[data-stage]").first
    stage.scroll_into_view_if_needed()
    page.wait_for_function(f"() => {VIEW}?.drawn() > 0")
    check_picks(page, stage, ring())
    check_draws_turns_and_clips(page, stage, look)
    second = page.locator("[data-stage]").nth(1)
    second.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelectorAll('[data-wavemesh]')[1].wavemesh.drawn() > 0")
    assert look(second.screenshot())["colors"] > 200
    assert [url for url in desk.requests if "127.0.0.1" not in url] == []


@pytest.mark.timeout(180)  # JupyterLab starts in this time too, on processors that other tests use
def test_in_jupyterlab_twenty_viewers(desk, lab):
    page = lab(desk, *(["voxel_viewer", "mesh_viewer"] * 10))
    check_twenty(page, 20)
