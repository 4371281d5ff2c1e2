"""Every message that a frontend sends, and the kernel's answer."""

import json
import os
import subprocess
import time
import uuid

import pytest

from driver import SETUP, Kernel


def until(path):
    """Rust code that waits for a file."""
    return f"while !std::path::Path::new({json.dumps(str(path))}).exists() {{ std::thread::sleep(std::time::Duration::from_millis(20)); }}"


def states(messages):
    return [m["content"]["execution_state"] for m in messages if m["msg_type"] == "status"]


def test_kernel_info_names_the_language(kernel):
    info = kernel.ask("kernel_info_request")["content"]
    assert info["status"] == "ok"
    assert info["protocol_version"] == "5.4"
    assert info["implementation"] == "wavemesh-kernel"
    language = info["language_info"]
    assert (language["name"], language["file_extension"]) == ("rust", ".rs")
    assert (language["pygments_lexer"], language["codemirror_mode"]) == ("rust", "rust")
    assert kernel.control("kernel_info_request")["content"] == info


def test_a_cell_is_announced_run_and_ended(kernel):
    ran = kernel.run('println!("hi"); 1 + 1')
    assert [m["msg_type"] for m in ran.messages] == ["status", "execute_input", "stream", "execute_result", "status"]
    assert states(ran.messages) == ["busy", "idle"]
    assert ran.of("execute_input")[0]["code"] == 'println!("hi"); 1 + 1'
    count = ran.reply["content"]["execution_count"]
    assert {c["execution_count"] for c in ran.of("execute_input", "execute_result")} == {count}
    assert ran.stream() == "hi\n" and ran.value == "2"
    assert ran.reply["content"]["payload"] == [] and ran.reply["content"]["user_expressions"] == {}
    assert kernel.run("2").reply["content"]["execution_count"] == count + 1


def test_every_message_refers_to_its_request_and_has_an_id_of_its_own(kernel):
    ran = kernel.run("println!(\"a\"); 3")
    ids = [m["header"]["msg_id"] for m in [*ran.messages, ran.reply]]
    assert len(set(ids)) == len(ids)
    assert {m["parent_header"]["session"] for m in [*ran.messages, ran.reply]} == {kernel.client.session.session}
    assert {m["header"]["version"] for m in [*ran.messages, ran.reply]} == {"5.4"}


def test_messages_as_vs_code_writes_them_are_understood(kernel):
    """Another protocol version, no user name, dates with Z, other metadata, and the requests that Python kernels answer."""
    session = kernel.client.session
    message = session.msg("execute_request", {"code": "6 * 7", "silent": False, "store_history": True, "user_expressions": {},
                                              "allow_stdin": True, "stop_on_error": False})
    message["header"].update(username="", version="5.2", date="2026-11-24T15:00:00.000Z", session=uuid.uuid4().hex)
    message["metadata"] = {"cellId": "vscode-notebook-cell:/notes.ipynb#W0sZmlsZQ=="}
    kernel.client.shell_channel.socket.send_multipart(session.serialize(message))
    reply = kernel.shell(message["header"]["msg_id"])
    assert reply["content"]["status"] == "ok" and reply["parent_header"]["session"] == message["header"]["session"]
    values = [m["content"]["data"]["text/plain"] for m in kernel.iopub(message["header"]["msg_id"]) if m["msg_type"] == "execute_result"]
    assert values == ["42"]
    assert kernel.ask("comm_info_request", {"target_name": "jupyter.widget"})["content"]["comms"] == {}
    debug = kernel.control("debug_request", {"type": "request", "seq": 1, "command": "debugInfo"})["content"]
    assert debug["success"] is False


def test_a_silent_cell_shows_and_counts_nothing(kernel):
    before = kernel.run("()").reply["content"]["execution_count"]
    ran = kernel.run('let silent_value = 5; println!("unseen"); silent_value', silent=True)
    assert [m["msg_type"] for m in ran.messages] == ["status", "status"]
    assert ran.status == "ok"
    after = kernel.run("silent_value")
    assert after.value == "5" and after.reply["content"]["execution_count"] == before + 1
    history = kernel.ask("history_request", {"hist_access_type": "tail", "n": 2})["content"]["history"]
    assert [entry[2] for entry in history] == ["()", "silent_value"]


def test_without_store_history_the_count_stays(kernel):
    before = kernel.run("()").reply["content"]["execution_count"]
    ran = kernel.run("7", store_history=False)
    assert ran.value == "7" and ran.reply["content"]["execution_count"] == before


def test_a_cell_has_the_number_that_the_page_gives_it(kernel):
    """In a Python notebook Python's cells count too; the extension reports them."""
    before = kernel.run("()").reply["content"]["execution_count"]
    message = kernel.client.session.msg("execute_request", {"code": "undefined_name", "silent": False})
    message["metadata"] = {"wavemesh": {"execution_count": before + 10}}
    kernel.client.shell_channel.send(message)
    error = kernel.shell(message["header"]["msg_id"])["content"]
    assert error["execution_count"] == before + 10
    assert f"In [{before + 10}]:1:1" in "\n".join(error["traceback"])
    assert kernel.run("()").reply["content"]["execution_count"] == before + 11


def test_an_empty_cell_is_fine(kernel):
    before = kernel.run("()").reply["content"]["execution_count"]
    for code in ["", "  \n"]:
        ran = kernel.run(code)
        assert ran.status == "ok" and ran.reply["content"]["execution_count"] == before


def test_the_setup_cell_of_notebooks_does_nothing_here(kernel):
    ran = kernel.run(SETUP)
    assert ran.status == "ok"
    assert [m["msg_type"] for m in ran.messages] == ["status", "execute_input", "status"]
    assert kernel.ask("is_complete_request", {"code": SETUP})["content"]["status"] == "complete"


def test_user_expressions_are_evaluated_after_the_cell(kernel):
    asked = {"sum": "a_value + 1", "wrong": "no_such_name"}
    ran = kernel.run("let a_value = 41;", user_expressions=asked)
    found = ran.reply["content"]["user_expressions"]
    assert found["sum"]["status"] == "ok" and found["sum"]["data"]["text/plain"] == "42"
    assert found["wrong"]["status"] == "error" and found["wrong"]["ename"]


def test_an_error_is_the_same_in_reply_and_output(kernel):
    ran = kernel.run('panic!("on purpose")')
    assert ran.status == "error"
    for field in ["ename", "evalue", "traceback"]:
        assert ran.reply["content"][field] and ran.reply["content"][field] == ran.error[field]
    assert "on purpose" in ran.error["evalue"]
    assert states(ran.messages) == ["busy", "idle"]
    assert kernel.value("1") == "1"


def test_an_error_aborts_the_cells_that_wait(kernel):
    cells = ["std::thread::sleep(std::time::Duration::from_millis(300));", "panic!();", "1", "2"]
    ids = [kernel.send(code) for code in cells]
    replies = [kernel.shell(msg_id)["content"] for msg_id in ids]
    assert [reply["status"] for reply in replies] == ["ok", "error", "aborted", "aborted"]
    assert ["execution_count" in reply for reply in replies] == [True, True, False, False]
    for msg_id in ids[2:]:
        assert states(kernel.iopub(msg_id)) == ["busy", "idle"]
    # Cells that were sent after the error was seen are run.
    assert kernel.value("3") == "3"


def test_without_stop_on_error_the_next_cells_run(kernel):
    ids = [kernel.send(code, stop_on_error=False) for code in ["panic!();", "1", "2"]]
    assert [kernel.shell(msg_id)["content"]["status"] for msg_id in ids] == ["error", "ok", "ok"]


@pytest.mark.parametrize(
    ("code", "status", "indent"),
    [
        ("let x = 1;", "complete", None),
        ("fn f() {", "incomplete", "    "),
        ("for i in 0..3 {\n    if i > 1 {", "incomplete", "        "),
        ("let x =", "incomplete", ""),
        ("fn f( -> {} ]", "invalid", None),
    ],
)
def test_is_complete_is_answered_by_a_parser(kernel, code, status, indent):
    reply = kernel.ask("is_complete_request", {"code": code})["content"]
    assert reply["status"] == status
    assert reply.get("indent") == indent


WAVE = """
/// A wave on the sea.
#[derive(Debug)]
struct Wave { height: f64 }
impl Wave {
    /// The top of the wave.
    fn crest(&self) -> f64 { self.height / 2.0 }
}
let some_wave = Wave { height: 3.0 };
"""


def test_completion_knows_variables_and_their_methods(kernel):
    assert kernel.run(WAVE).status == "ok"
    code = "let é = some_wa"
    reply = kernel.ask("complete_request", {"code": code, "cursor_pos": len(code)})["content"]
    assert reply["status"] == "ok" and "some_wave" in reply["matches"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (8, len(code))
    code = "println!(); some_wave.cre"
    reply = kernel.ask("complete_request", {"code": code, "cursor_pos": len(code)})["content"]
    assert [match for match in reply["matches"] if match.startswith("crest")], reply
    assert reply["cursor_start"] == len(code) - 3
    typed = reply["metadata"]["_jupyter_types_experimental"]
    assert {t["text"] for t in typed} == set(reply["matches"]) and {t["start"] for t in typed} == {len(code) - 3}


def complete(kernel, code, patience=0):
    """The suggestions at the end of `code` as {text: signature}; waits until there are some."""
    end = time.monotonic() + patience
    while True:
        reply = kernel.ask("complete_request", {"code": code, "cursor_pos": len(code)})["content"]
        if reply["matches"] or time.monotonic() > end:
            return {t["text"]: t["signature"] for t in reply["metadata"]["_jupyter_types_experimental"]}
        time.sleep(0.3)


def inspect(kernel, code, cursor=None):
    cursor = len(code) if cursor is None else cursor
    return kernel.ask("inspect_request", {"code": code, "cursor_pos": cursor, "detail_level": 0})["content"]["data"]


def test_completion_knows_the_library_and_the_types_of_unrun_code(kernel):
    # The first kernel after a new library learns its names in the background.
    assert complete(kernel, "Tensor::ful", patience=120)["full"].startswith("pub fn full<")
    assert kernel.run("let tensor = Tensor::full(1f32, (3, 4), &Device::Cpu)?;\nlet numbers = vec![1f32];").status == "ok"
    assert complete(kernel, "tens")["tensor"] == "wavemesh::prelude::Tensor"
    assert complete(kernel, "tensor.resh")["reshape"].startswith("pub fn reshape<S>(&self, s: S) -> Result<Tensor, Error>")
    assert "to_scalar" in complete(kernel, "let y = tensor.sum_all()?.to_sc")
    assert "to_vec2" in complete(kernel, "for i in 0..2 { let rows = tensor.to_v")
    assert {"push", "iter", "len"} <= set(complete(kernel, "numbers."))
    assert "sum" in complete(kernel, "numbers.iter().map(|x| x * 2.0).su")
    assert "sqrt" in complete(kernel, "numbers[0].sq")
    assert "Mesh" in complete(kernel, "wavemesh::mesh::")
    assert {"load", "cube"} & set(complete(kernel, "Mesh::"))
    assert complete(kernel, "let c = UNetConfig { in_")["in_channels"] == "in_channels: usize"
    assert "HashMap" in complete(kernel, "use std::collections::Ha")
    # Functions without `self` do not follow a dot.
    assert "full" not in complete(kernel, "tensor.fu")


def test_inspection_shows_the_documentation_of_the_library(kernel):
    complete(kernel, "Tensor::ful", patience=120)
    assert kernel.run("let tensor = Tensor::full(1f32, (3, 4), &Device::Cpu)?;").status == "ok"
    variable = inspect(kernel, "tensor")
    assert variable["text/plain"].startswith("let tensor: wavemesh::prelude::Tensor")
    method = inspect(kernel, "tensor.reshape((4, 3))", cursor=12)
    assert "pub fn reshape<S>(&self, s: S)" in method["text/plain"] and "elements" in method["text/plain"]
    assert method["text/markdown"].startswith("```rust\n")
    assert "pub fn full<" in inspect(kernel, "Tensor::full(1f32, ")["text/plain"], "inside of the parentheses"
    assert "A triangle mesh" in inspect(kernel, "Mesh")["text/plain"]
    assert "Appends an element" in inspect(kernel, "Vec::push")["text/plain"]
    assert "let local: wavemesh::prelude::Tensor" in inspect(kernel, "let local = tensor.sum_all()?; local")["text/plain"]
    assert "The top of the wave." in inspect(kernel, WAVE + "some_wave.crest")["text/plain"]


def test_completion_of_nothing_is_empty_not_an_error(kernel):
    reply = kernel.ask("complete_request", {"code": "zzzz_no_such_thing", "cursor_pos": 18})["content"]
    assert reply["status"] == "ok" and reply["matches"] == []
    assert reply["cursor_start"] == reply["cursor_end"] == 18


def test_inspection_shows_types_definitions_and_where_to_read(kernel):
    assert kernel.run(WAVE).status == "ok"
    for code, shown in [("some_wave", "Wave"), ("Wave", "struct Wave { height: f64 }"), ("regex::Regex", "docs.rs/regex")]:
        reply = kernel.ask("inspect_request", {"code": code, "cursor_pos": len(code), "detail_level": 0})["content"]
        assert reply["status"] == "ok" and reply["found"], code
        assert shown in reply["data"]["text/plain"]
    nothing = kernel.ask("inspect_request", {"code": "   ", "cursor_pos": 1, "detail_level": 0})["content"]
    assert nothing == {"status": "ok", "found": False, "data": {}, "metadata": {}}


def test_history_is_kept_between_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVEMESH_HISTORY", str(tmp_path / "history.jsonl"))
    with Kernel() as first:
        first.value("let kept = 1;")
        first.value("kept + 1")
    with Kernel() as second:
        second.value("40 + 2")
        tail = second.ask("history_request", {"hist_access_type": "tail", "n": 10, "output": False})["content"]["history"]
        assert tail == [[1, 1, "let kept = 1;"], [1, 2, "kept + 1"], [2, 1, "40 + 2"]]
        asked = {"hist_access_type": "range", "session": -1, "start": 1, "stop": 2, "output": False}
        assert second.ask("history_request", asked)["content"]["history"] == [[1, 1, "let kept = 1;"]]
        asked = {"hist_access_type": "range", "session": 0, "start": 1, "stop": 2, "output": True}
        assert second.ask("history_request", asked)["content"]["history"] == [[2, 1, ["40 + 2", "42"]]]
        found = second.ask("history_request", {"hist_access_type": "search", "pattern": "kept*"})["content"]["history"]
        assert [entry[2] for entry in found] == ["kept + 1"]


def test_a_comm_with_an_unknown_target_is_closed(kernel):
    message = kernel.client.session.msg("comm_open", {"comm_id": "c1", "target_name": "nobody", "data": {}})
    kernel.client.shell_channel.send(message)
    answers = list(kernel.iopub(message["header"]["msg_id"]))
    assert [m["msg_type"] for m in answers] == ["status", "comm_close", "status"]
    assert answers[1]["content"]["comm_id"] == "c1"
    assert kernel.ask("comm_info_request")["content"] == {"status": "ok", "comms": {}}


def test_a_comm_reaches_the_cell_that_registered_its_target(kernel, tmp_path):
    assert kernel.run("""
        use wavemesh_cell::comm::{Event, on_target};
        on_target("echo", |comm, event| match event {
            Event::Open(data) | Event::Message(data) => comm.send(data),
            Event::Close(data) => println!("closed with {data}"),
        });
    """).status == "ok"

    def say(kind, content, until):
        kernel.client.shell_channel.send(kernel.client.session.msg(kind, {"comm_id": "c7", **content}))
        while True:
            message = kernel.client.get_iopub_msg(timeout=20)
            if message["msg_type"] == until:
                return message["content"]

    assert say("comm_open", {"target_name": "echo", "data": {"n": 1}}, "comm_msg") == {"comm_id": "c7", "data": {"n": 1}}
    assert kernel.ask("comm_info_request")["content"]["comms"] == {"c7": {"target_name": "echo"}}
    data = {"text": "é\n\u001e\u001f", "list": [1, None, {"deep": "x" * 100_000}]}
    assert say("comm_msg", {"data": data}, "comm_msg")["data"] == data
    answered = tmp_path / "answered"  # the cell ends when this is there
    running = kernel.send(f'println!("begun"); {until(answered)}')
    kernel.wait_until_running(running)
    assert say("comm_msg", {"data": {"while": "busy"}}, "comm_msg")["data"] == {"while": "busy"}
    answered.touch()
    assert kernel.shell(running)["content"]["status"] == "ok"
    assert say("comm_close", {"data": {"bye": 1}}, "stream")["text"] == 'closed with {"bye":1}\n'
    assert kernel.ask("comm_info_request")["content"]["comms"] == {}
    # The kernel does not know the comm any more.
    assert say("comm_msg", {"data": {}}, "comm_close")["comm_id"] == "c7"


def test_a_cell_opens_a_comm_of_its_own(kernel):
    ran = kernel.run('let own = wavemesh_cell::comm::open("page", r#"{"a": 1}"#, |_, _| {});\nown.send(r#"{"b": 2}"#);')
    assert ran.status == "ok"
    [opened], [said] = ran.of("comm_open"), ran.of("comm_msg")
    assert (opened["target_name"], opened["data"], said["data"]) == ("page", {"a": 1}, {"b": 2})
    assert kernel.ask("comm_info_request", {"target_name": "page"})["content"]["comms"] == {opened["comm_id"]: {"target_name": "page"}}
    assert [c["comm_id"] for c in kernel.run("own.close();").of("comm_close")] == [opened["comm_id"]]


def test_input_comes_from_the_frontend(kernel):
    code = 'let mut line = String::new(); std::io::stdin().read_line(&mut line)?; println!("got {line:?}");'
    msg_id = kernel.send(code, allow_stdin=True)
    question = kernel.client.get_stdin_msg(timeout=60)
    assert question["msg_type"] == "input_request" and question["parent_header"]["msg_id"] == msg_id
    assert question["content"]["password"] is False
    kernel.client.input("an answer")
    assert kernel.shell(msg_id)["content"]["status"] == "ok"
    assert 'got "an answer\\n"' in "".join(m["content"]["text"] for m in kernel.iopub(msg_id) if m["msg_type"] == "stream")


def test_without_a_frontend_to_ask_input_is_at_its_end(kernel):
    code = 'let mut line = String::new(); let n = std::io::stdin().read_line(&mut line)?; println!("read {n}");'
    ran = kernel.run(code, allow_stdin=False)
    assert ran.status == "ok" and ran.stream() == "read 0\n"


def test_what_is_not_supported_is_refused_not_ignored(kernel):
    debug = kernel.control("debug_request", {"type": "request", "seq": 4, "command": "initialize", "arguments": {}})
    assert debug["msg_type"] == "debug_reply"
    assert (debug["content"]["success"], debug["content"]["request_seq"]) == (False, 4)
    unknown = kernel.ask("holiday_request")
    assert unknown["msg_type"] == "holiday_reply" and unknown["content"]["status"] == "error"
    assert kernel.ask("connect_request")["content"]["shell_port"] == kernel.connection()["shell_port"]


def test_questions_are_answered_while_a_cell_runs(kernel, tmp_path):
    answered = tmp_path / "answered"  # the cell ends when this is there
    msg_id = kernel.send(f'println!("begun"); {until(answered)} println!("done");')
    kernel.wait_until_running(msg_id)
    assert kernel.ask("kernel_info_request")["content"]["status"] == "ok"
    assert kernel.ask("is_complete_request", {"code": "1"})["content"]["status"] == "complete"
    assert kernel.ask("history_request", {"hist_access_type": "tail", "n": 1})["content"]["history"]
    assert kernel.ask("comm_info_request")["content"]["status"] == "ok"
    assert kernel.ask("complete_request", {"code": "std::", "cursor_pos": 5})["content"]["status"] == "ok"
    inspection = kernel.ask("inspect_request", {"code": "String", "cursor_pos": 6, "detail_level": 0})
    assert inspection["content"]["status"] == "ok"
    answered.touch()
    # After each answer the cell is still shown as running.
    rest = list(kernel.iopub(msg_id))
    assert rest[-1]["content"]["execution_state"] == "idle" and "busy" in states(rest)
    assert "done\n" in "".join(m["content"]["text"] for m in rest if m["msg_type"] == "stream")
    assert kernel.shell(msg_id)["content"]["status"] == "ok"


def test_kernel_info_needs_no_compile():
    with Kernel(env={**os.environ, "PATH": "/nowhere"}) as kernel:  # without a linker nothing can be compiled
        assert kernel.ask("kernel_info_request")["content"]["status"] == "ok"


def test_a_question_mark_opens_the_pager(kernel):
    assert kernel.run(WAVE).status == "ok"
    ran = kernel.run("?Wave")
    assert ran.status == "ok" and ran.of("execute_result", "error") == []
    [page] = ran.reply["content"]["payload"]
    assert page["source"] == "page" and "struct Wave { height: f64 }" in page["data"]["text/plain"]
    [page] = kernel.run("?no_such_name").reply["content"]["payload"]
    assert "Nothing is known" in page["data"]["text/plain"]


def test_a_frontend_that_comes_late_sees_the_next_cell(kernel):
    late = kernel.manager.client()
    late.start_channels()
    try:
        # It hears of everything from its subscription on, and that may come after the kernel's other answers.
        while late.get_iopub_msg(timeout=30)["msg_type"] != "iopub_welcome":
            pass
        msg_id = kernel.send("8")
        seen = []
        while not (seen and seen[-1]["msg_type"] == "status" and seen[-1]["content"]["execution_state"] == "idle"):
            message = late.get_iopub_msg(timeout=30)
            if message["parent_header"].get("msg_id") == msg_id:
                seen.append(message)
        assert "execute_result" in [m["msg_type"] for m in seen]
    finally:
        late.stop_channels()


def test_the_first_subscriber_is_welcomed_and_told_that_the_kernel_starts():
    kernel = Kernel()
    kernel.manager.start_kernel()
    client = kernel.manager.client()
    try:
        client.start_channels()
        first, second = client.get_iopub_msg(timeout=30), client.get_iopub_msg(timeout=30)
        assert (first["msg_type"], first["content"]) == ("iopub_welcome", {"subscription": ""})
        # start_channels of older clients asks for kernel_info at once, which ends the starting.
        assert second["msg_type"] == "status" and second["content"]["execution_state"] in ("starting", "busy")
    finally:
        client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


def test_a_connection_file_that_is_none_is_refused_without_showing_its_key(program, tmp_path):
    for content, said in [
        ("{", "is not a connection file"),
        ('{"key": "s3cret"}', "is not a connection file"),
        (None, "cannot read"),
    ]:
        file = tmp_path / "connection.json"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        done = subprocess.run([program, "run", "--connection-file", file], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and said in done.stderr and "s3cret" not in done.stderr
