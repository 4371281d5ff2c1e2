"""The relay passes on everything, as it happens. A second Python kernel stands in for the Rust kernel."""

import os
import sys
import time

import pytest

from notebook import Notebook
from wavemesh_kernel import magics, widgets

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_a_cell_runs_in_the_other_kernel(relayed):
    other = relayed.run("import os; os.getpid()").ok().value()
    own = relayed.run("%%python\nimport os; os.getpid()").ok().value()
    assert other != own


def test_the_value_is_an_execute_result_with_every_mime_type(relayed):
    ran = relayed.run(f"""
from IPython.display import Image
class Both:
    def _repr_mimebundle_(self, **_):
        return {{"text/plain": "plain", "text/html": "<b>rich</b>", "image/png": {PNG!r}, "application/x-own+json": {{"a": [1]}}}}, {{"image/png": {{"width": 7}}}}
Both()""").ok()
    (result,) = ran.of("execute_result")
    assert result["data"] == {
        "text/plain": "plain",
        "text/html": "<b>rich</b>",
        "image/png": PNG,
        "application/x-own+json": {"a": [1]},
    }
    assert result["metadata"] == {"image/png": {"width": 7}}


def test_the_kernel_is_told_the_number_that_the_page_gives_the_cell(relayed):
    relayed.run("%%python\n1").ok()
    ran = relayed.run("get_ipython().kernel.get_parent()['metadata']['wavemesh']['execution_count']").ok()
    (number,) = [content["execution_count"] for content in ran.of("execute_result")]
    assert ran.value() == str(number)


def test_a_cell_without_a_value_shows_none(relayed):
    assert relayed.run("x = 1;").ok().messages == []


def test_prints_arrive_while_the_cell_runs_and_in_order(relayed):
    ran = relayed.run(
        "import time, sys\nfor i in range(4):\n    print(i, flush=True)\n    print('e', i, file=sys.stderr, flush=True)\n    time.sleep(0.4)"
    ).ok()
    assert ran.text() == "0\n1\n2\n3\n"
    assert ran.text("stderr") == "e 0\ne 1\ne 2\ne 3\n"
    times = [at for at, kind, content in ran.messages if kind == "stream" and content["name"] == "stdout"]
    assert times[-1] - times[0] > 0.8, times


def test_partial_lines_carriage_returns_and_colours_pass_unchanged(relayed):
    text = "50 %\r100 %\x1b[31mred\x1b[0m é 火 no newline"
    assert relayed.run(f"print({text!r}, end='', flush=True)").ok().text() == text


def test_a_display_is_updated_in_place(relayed):
    ran = relayed.run("h = display('one', display_id='here')\nh.update('two')").ok()
    (first,), (second,) = ran.of("display_data"), ran.of("update_display_data")
    assert first["data"]["text/plain"] == "'one'" and second["data"]["text/plain"] == "'two'"
    assert first["transient"] == second["transient"] == {"display_id": "here"}


def test_an_update_from_a_later_cell_reaches_the_display(relayed):
    (update,) = relayed.run("h.update('three')").ok().of("update_display_data")
    assert update["transient"] == {"display_id": "here"}


def test_clear_output_keeps_its_place_and_its_wait(relayed):
    ran = relayed.run(
        "from IPython.display import clear_output\nprint('a', flush=True)\nclear_output(wait=True)\nprint('b', flush=True)\nclear_output()"
    ).ok()
    assert ran.kinds() == ["stream", "clear_output", "stream", "clear_output"]
    assert [content["wait"] for content in ran.of("clear_output")] == [True, False]


def test_an_error_is_an_error_with_the_other_kernels_words_only(relayed):
    ran = relayed.run("print('before', flush=True)\n1/0")
    assert ran.reply["status"] == "error" and ran.reply["ename"] == "ZeroDivisionError"
    (error,) = ran.of("error")
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "wavemesh_kernel" not in "".join(error["traceback"])
    assert ran.kinds() == ["stream", "error"]


def test_an_error_stops_run_all(relayed):
    relayed.run("1").ok()  # after this, the kernel no longer refuses cells because of another test's error
    client = relayed.client
    first = client.execute("1/0")
    second = client.execute("print('must not run')", stop_on_error=True)
    status = {}
    while len(status) < 2:
        reply = client.get_shell_msg(timeout=30)
        status[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
    assert status[first] == "error" and status[second] == "aborted"
    relayed.run("1").ok()


def test_input_is_asked_and_answered(relayed):
    ran = relayed.run("name = input('Name? ')\nname", answers=["Ada"]).ok()
    assert ran.prompts == [{"prompt": "Name? ", "password": False}]
    assert ran.value() == "'Ada'"


def test_a_password_is_asked_as_one(relayed):
    ran = relayed.run("import getpass\ngetpass.getpass('Secret? ')", answers=["xyz"]).ok()
    assert ran.prompts == [{"prompt": "Secret? ", "password": True}]
    assert ran.value() == "'xyz'"


def test_without_a_user_input_is_an_error_not_a_hang(relayed):
    assert relayed.run("input()").reply["ename"] == "StdinNotImplementedError"


def test_an_interrupt_stops_the_cell_and_keeps_variables(relayed):
    relayed.run("kept = 41").ok()
    ran = relayed.run("import time\nprint('going', flush=True)\nwhile True: time.sleep(0.05)", interrupt_after=1.0, timeout=20)
    assert ran.reply["ename"] == "KeyboardInterrupt"
    assert ran.text() == "going\n"
    assert relayed.run("kept + 1").ok().value() == "42"


def test_an_interrupt_while_waiting_for_input_stops_the_cell(relayed):
    relayed.client.allow_stdin = True
    request = relayed.client.execute("input('never answered')", allow_stdin=True)
    relayed.client.get_stdin_msg(timeout=10)
    relayed.manager.interrupt_kernel()
    while (reply := relayed.client.get_shell_msg(timeout=20))["parent_header"]["msg_id"] != request:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert relayed.run("kept").ok().value() == "41"


def test_a_cell_that_will_not_stop_can_be_left_behind_and_restarted(relayed):
    stubborn = "import time\nend = time.time() + 60\nwhile time.time() < end:\n    try: time.sleep(0.1)\n    except KeyboardInterrupt: pass"
    ran = relayed.run(stubborn, interrupt_after=[0.5, 1.0, 1.5], timeout=20)
    assert ran.reply["ename"] == "RustInterrupted" and "%rust restart" in ran.reply["evalue"]
    assert "Interrupt once more" in ran.text("stderr")
    assert "fresh" in relayed.run("%rust restart", timeout=30).ok().text()
    assert relayed.run("kept").reply["ename"] == "NameError"


def test_a_long_silent_cell_has_no_time_limit(relayed):
    ran = relayed.run("import time; time.sleep(7); 'done'").ok()
    assert ran.value() == "'done'" and ran.seconds >= 7


def test_many_lines_all_arrive(relayed):
    ran = relayed.run("for i in range(100_000): print(i)").ok()
    assert ran.text() == "".join(f"{i}\n" for i in range(100_000))


def test_death_is_reported_and_recovered_from(relayed):
    relayed.run("lost = 1").ok()
    ran = relayed.run(
        "print('last', flush=True)\nimport os, signal, time; time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)", timeout=30
    )
    assert ran.reply["ename"] == "RustKernelDied" and "variables are lost" in ran.reply["evalue"]
    assert ran.text() == "last\n"
    assert relayed.run("1 + 1", timeout=30).ok().value() == "2"
    assert relayed.run("lost").reply["ename"] == "NameError"


def test_death_between_cells_is_reported_before_the_next_one_runs(relayed):
    pid = relayed.run("import os; os.getpid()").ok().value()
    relayed.run(f"%%python\nimport os, signal, time; os.kill({pid}, signal.SIGKILL); time.sleep(0.5)").ok()
    assert relayed.run("1 + 1").reply["ename"] == "RustKernelDied"
    assert relayed.run("1 + 1").ok().value() == "2"


def complete(notebook, code):
    """The first completion loads the stand-in's completer, and its answer may come too late; so ask as a typing user does."""
    end = time.monotonic() + 30
    while not (reply := notebook.ask("complete", code, len(code)))["matches"] and time.monotonic() < end:
        pass
    return reply


def test_completion_needs_no_cell_before_it(stand_in, tmp_path):
    notebook = Notebook(tmp_path, {**os.environ, "WAVEMESH_KERNEL": str(stand_in)})
    try:
        notebook.run("%load_ext wavemesh_kernel").ok()
        assert "isinstance" in complete(notebook, "isinst")["matches"]
        assert "isinstance" in notebook.ask("inspect", "isinstance", 5)["data"]["text/plain"]
    finally:
        notebook.close()


def test_completion_and_inspection_come_from_the_other_kernel(relayed):
    relayed.run("a_long_name_over_there = 1\ndef documented():\n    'words over there'").ok()
    code = "1 + a_long_name_over"
    reply = complete(relayed, code)
    assert reply["matches"] == ["a_long_name_over_there"] and (reply["cursor_start"], reply["cursor_end"]) == (4, len(code))
    assert "words over there" in relayed.ask("inspect", "documented", 5)["data"]["text/plain"]
    assert relayed.ask("is_complete", "for x in y:")["status"] == "incomplete"


def test_in_a_percent_rust_cell_completion_counts_the_first_line(relayed):
    code = "%%rust\na_long_name_over"
    reply = complete(relayed, code)
    assert reply["matches"] == ["a_long_name_over_there"] and reply["cursor_start"] == len("%%rust\n")


@pytest.mark.parametrize("first", ["%%python\n", "%precision 3\n", "!true\n"])
def test_these_cells_stay_python(relayed, first):
    relayed.run(first + "here = 'python side'").ok()
    assert relayed.run("%%python\nhere").ok().value() == "'python side'"
    assert relayed.run("here").reply["ename"] == "NameError"


def test_the_mode_goes_off_and_on(relayed):
    assert "Python again" in relayed.run("%rust_mode off").ok().text()
    relayed.run("side = 'python'").ok()
    assert relayed.run("%%rust\n'side' in globals()").ok().value() == "False"
    relayed.run("%rust_mode on").ok()
    assert relayed.run("'side' in globals()").ok().value() == "False"


@pytest.mark.parametrize(
    "magic", ["%rust dance", "%rust_mode maybe", "%rust_push", "%rust_push nowhere", "%rust_pull 1x", "%%rust now\n1"]
)
def test_a_wrong_use_says_what_is_right(relayed, magic):
    ran = relayed.run(magic)
    assert ran.reply["ename"] == "RustUsageError", ran.reply
    assert "wavemesh_kernel" not in "".join(ran.reply["traceback"])


def test_widgets_talk_both_ways(relayed):
    ran = relayed.run("""
from ipykernel.comm import Comm
got = []
comm = Comm(target_name='t', data={'hello': 1})
comm.on_msg(lambda message: (got.append(message['content']['data']), comm.send({'echo': 2})))""").ok()
    (opened,) = ran.of("comm_open")
    assert opened["data"] == {"hello": 1}
    client = relayed.client
    message = client.session.msg("comm_msg", {"comm_id": opened["comm_id"], "data": {"click": 3}})
    client.shell_channel.send(message)
    while (answer := client.get_iopub_msg(timeout=10))["msg_type"] != "comm_msg":
        pass
    assert answer["content"]["data"] == {"echo": 2}
    assert relayed.run("got").ok().value() == "[{'click': 3}]"


@pytest.mark.parametrize(
    "version, controls, base, protocol",
    [("7.7.1", "1.5.0", "1.2.0", "2.0.0"), ("8.1.5", "2.0.0", "2.0.0", "2.1.0"), (None, "2.0.0", "2.0.0", "2.1.0")],
)
def test_widgets_are_those_of_the_page(monkeypatch, version, controls, base, protocol):
    def installed(name):
        if version is None:
            raise widgets.installed.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(widgets.installed, "version", installed)
    state = {
        f"_{part}_{field}": value
        for part, module in [("model", "@jupyter-widgets/controls"), ("view", "@jupyter-widgets/base")]
        for field, value in [("module", module), ("module_version", "2.0.0")]
    }
    content = {"comm_id": "c", "target_name": "jupyter.widget", "data": {"state": {**state, "value": 3}, "buffer_paths": []}}
    given, metadata = widgets.for_installed(content, {"version": "2.1.0"})
    shown = given["data"]["state"]
    assert (shown["_model_module_version"], shown["_view_module_version"], metadata["version"]) == (controls, base, protocol)
    assert (shown["value"], given["comm_id"], content["data"]["state"]["_model_module_version"]) == (3, "c", "2.0.0")
    other = {**content, "target_name": "own"}
    assert widgets.for_installed(other, None) == (other, None)


def test_nothing_is_left_when_the_notebook_closes(stand_in, tmp_path):
    notebook = Notebook(tmp_path, {**os.environ, "WAVEMESH_KERNEL": str(stand_in), "TMPDIR": str(tmp_path)})
    notebook.run("%load_ext wavemesh_kernel").ok()
    pid = int(notebook.run("import os; os.getpid()").ok().value())
    assert list(tmp_path.glob("wavemesh-*"))
    notebook.close()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")
    assert not list(tmp_path.glob("wavemesh-*"))


def test_unloading_takes_everything_back(stand_in, tmp_path):
    notebook = Notebook(tmp_path, {**os.environ, "WAVEMESH_KERNEL": str(stand_in)})
    try:
        notebook.run("%load_ext wavemesh_kernel").ok()
        notebook.run("%unload_ext wavemesh_kernel").ok()
        notebook.run("own = 1").ok()
        assert notebook.run("own").ok().value() == "1"
        assert notebook.run("%rust_mode on").text("stderr") != ""
        assert notebook.ask("complete", "own", 3)["matches"][:1] == ["own"]
    finally:
        notebook.close()


def test_the_doctor_finds_the_jupyter_beside_this_python(tmp_path, monkeypatch, capsys):
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$PATH"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    magics.Extension._doctor(None)
    assert capsys.readouterr().out == f"{tmp_path}:/usr/bin:/bin\n"
