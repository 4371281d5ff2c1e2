"""Sliders and their like, as a page's widget manager speaks with them: https://ipywidgets.readthedocs.io, "Low level widget explanation"."""

import pytest
from driver import Kernel

CONTROLS = """let level = notebook::slider("level", 0.0..=1.0).value(0.25);
let count = notebook::slider("count", 1..=9).value(3);
let kind = notebook::dropdown("kind", ["torus", "sphere"])?;
let closed = notebook::checkbox("closed", true);
let again = notebook::button("Again");"""
VIEW = """let shown = notebook::interact((&level, &count, &kind, &closed, &again), |(level, count, kind, closed, again)| format!("{level} {count} {kind} {closed} {again}"));
shown"""


class Page:
    """Models as the page holds them."""

    def __init__(self, kernel):
        self.kernel, self.models = kernel, {}

    def take(self, message):
        content = message["content"]
        if message["msg_type"] == "comm_open":
            assert content["target_name"] == "jupyter.widget" and message["metadata"]["version"].startswith("2.")
            self.models[content["comm_id"]] = content["data"]["state"]
        elif message["msg_type"] == "comm_msg" and content["data"]["method"] == "update":
            self.models[content["comm_id"]] |= content["data"]["state"]

    def run(self, code):
        ran = self.kernel.run(code)
        assert ran.status == "ok", ran.reply["content"]["traceback"]
        for message in ran.messages:
            self.take(message)
        return ran

    def find(self, name, description):
        [(identity, state)] = [pair for pair in self.models.items() if pair[1]["_model_name"] == name and pair[1].get("description") == description]
        return identity, state

    def say(self, identity, data):
        self.kernel.client.shell_channel.send(self.kernel.client.session.msg("comm_msg", {"comm_id": identity, "data": data}))

    def wait(self, seen):
        while not seen():
            self.take(self.kernel.client.get_iopub_msg(timeout=60))


@pytest.fixture(scope="module")
def page():
    with Kernel() as kernel:
        page = Page(kernel)
        page.run(CONTROLS)
        page.shown = page.run(VIEW)
        yield page


def moves(page, name, description, data, expected):
    """The page sends `data` of a control; the view must follow."""
    identity, _ = page.find(name, description)
    page.say(identity, data)
    _, output = page.find("HTMLModel", "")
    page.wait(lambda: expected in output["value"])


def test_controls_are_jupyters_own_models(page):
    [result] = page.shown.of("execute_result")
    view = result["data"]["application/vnd.jupyter.widget-view+json"]
    whole = page.models[view["model_id"]]
    assert (whole["_model_name"], whole["_model_module"], view["version_major"]) == ("VBoxModel", "@jupyter-widgets/controls", 2)
    children = [page.models[child.removeprefix("IPY_MODEL_")] for child in whole["children"]]
    assert [child["_model_name"] for child in children] == ["FloatSliderModel", "IntSliderModel", "DropdownModel", "CheckboxModel", "ButtonModel", "HTMLModel"]
    level, count, kind, closed = children[:4]
    assert (level["min"], level["max"], level["value"], level["readout_format"]) == (0.0, 1.0, 0.25, ".2f")
    assert (count["min"], count["max"], count["step"], count["value"]) == (1, 9, 1, 3)
    assert (kind["_options_labels"], kind["index"], closed["value"]) == (["torus", "sphere"], 0, True)
    assert page.models[level["style"].removeprefix("IPY_MODEL_")]["_model_name"] == "SliderStyleModel"
    assert "0.25 3 torus true 0" in children[5]["value"]


def test_where_no_page_lives_the_values_show(page):
    [result] = page.shown.of("execute_result")
    assert "level: 0.25" in result["data"]["text/plain"] and "0.25 3 torus true 0" in result["data"]["text/plain"]
    assert "<b>torus</b>" in result["data"]["text/html"] and "<script" not in result["data"]["text/html"]


def test_a_moved_control_makes_the_view_anew_and_later_cells_know(page):
    def update(**state):
        return {"method": "update", "state": state, "buffer_paths": []}

    moves(page, "FloatSliderModel", "level", update(value=0.5), "0.5 3 torus true 0")
    moves(page, "IntSliderModel", "count", update(value=7), "0.5 7 torus true 0")
    moves(page, "DropdownModel", "kind", update(index=1), "0.5 7 sphere true 0")
    moves(page, "CheckboxModel", "closed", update(value=False), "0.5 7 sphere false 0")
    moves(page, "ButtonModel", "Again", {"method": "custom", "content": {"event": "click"}}, "0.5 7 sphere false 1")
    # Messages that none of our widgets sends are corrected or ignored.
    moves(page, "FloatSliderModel", "level", update(value=99), "1 7 sphere false 1")
    moves(page, "DropdownModel", "kind", update(index=-4), "1 7 sphere false 1")
    moves(page, "CheckboxModel", "closed", update(value="perhaps", other=3), "1 7 sphere false 1")
    assert page.kernel.value("(level.get(), count.get(), kind.get(), closed.get(), again.get())") == '(1.0, 7, "sphere", false, 1)'


def test_a_cell_moves_the_page(page):
    page.run("level.set(0.75);")
    identity, state = page.find("FloatSliderModel", "level")
    page.wait(lambda: state["value"] == 0.75)
    _, output = page.find("HTMLModel", "")
    page.wait(lambda: "0.75 7" in output["value"])
    # A page that was loaded again asks for the models.
    state.clear()
    page.say(identity, {"method": "request_state"})
    page.wait(lambda: state.get("value") == 0.75)
    assert state["_model_name"] == "FloatSliderModel"


def test_a_view_that_fails_says_so_and_goes_on(page):
    page.run("""let risk = notebook::slider("risk", 0..=2);
notebook::interact(&risk, |risk| match risk { 0 => Ok(notebook::markdown("fine")), 1 => Err("too much"), _ => panic!("far too much") })""")
    identity, _ = page.find("IntSliderModel", "risk")
    [output] = [state for state in page.models.values() if state["_model_name"] == "HTMLModel" and "fine" in state["value"]]
    for value, text in [(1, "too much"), (2, "panicked"), (0, "fine")]:
        page.say(identity, {"method": "update", "state": {"value": value}, "buffer_paths": []})
        page.wait(lambda: text in output["value"])


def test_while_a_view_is_made_the_last_move_counts(page):
    page.run("""let slow = notebook::slider("slow", 0..=100);
let made = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
notebook::interact(&slow, { let made = made.clone(); move |value| { made.fetch_add(1, std::sync::atomic::Ordering::SeqCst); std::thread::sleep(std::time::Duration::from_millis(200)); format!("slow {value}") } })""")
    identity, _ = page.find("IntSliderModel", "slow")
    [output] = [state for state in page.models.values() if state["_model_name"] == "HTMLModel" and "slow 0" in state["value"]]
    for value in range(1, 101):
        page.say(identity, {"method": "update", "state": {"value": value}, "buffer_paths": []})
    page.wait(lambda: "slow 100" in output["value"])
    assert int(page.kernel.value("made.load(std::sync::atomic::Ordering::SeqCst)")) < 101


def test_a_dropdown_without_options_is_an_error(page):
    ran = page.kernel.run('notebook::dropdown("none", Vec::<String>::new())?;')
    assert ran.status == "error" and "expected one option or more" in ran.error["evalue"]
