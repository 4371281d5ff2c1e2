"""Output arrives immediately, in order and complete."""

import json

import pytest


def test_text_without_a_newline_appears_while_the_cell_runs(kernel, tmp_path):
    # The cell writes the next number only after this one has arrived here; a file named after the number tells the cell.
    msg_id = kernel.send(
        """use std::io::Write;
        let arrived = std::path::Path::new(FOLDER);
        for i in 0..5 {
            print!("{i}");
            std::io::stdout().flush()?;
            for _ in 0..6000 {
                if arrived.join(i.to_string()).exists() { break; }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }""".replace("FOLDER", json.dumps(str(tmp_path)))
    )
    found = []
    for message in kernel.iopub(msg_id):
        if message["msg_type"] == "stream":
            found.append(message["content"]["text"])
            (tmp_path / found[-1]).touch()
    assert kernel.shell(msg_id)["content"]["status"] == "ok"
    assert found == ["0", "1", "2", "3", "4"]


def test_a_print_that_nobody_flushes_still_appears(kernel):
    ran = kernel.run('print!("no newline");')
    assert ran.status == "ok" and ran.stream() == "no newline"


def test_carriage_returns_arrive_as_they_are(kernel):
    ran = kernel.run('for i in 0..3 { print!("\\r{i}"); } println!();')
    assert ran.stream() == "\r0\r1\r2\n"


def test_stdout_and_stderr_keep_their_order(kernel):
    ran = kernel.run(
        """for i in 0..10 {
            println!("out {i}");
            std::thread::sleep(std::time::Duration::from_millis(250));
            eprintln!("err {i}");
            std::thread::sleep(std::time::Duration::from_millis(250));
        }"""
    )
    lines = "".join(c["text"] for c in ran.of("stream")).split("\n")[:-1]
    assert lines == [f"{name} {i}" for i in range(10) for name in ("out", "err")]
    assert ran.stream("stderr") == "".join(f"err {i}\n" for i in range(10))


def test_a_million_lines_arrive_in_order(kernel):
    ran = kernel.run('for i in 0..1_000_000 { println!("{i}"); }', timeout=300)
    assert ran.status == "ok"
    assert ran.stream() == "".join(f"{i}\n" for i in range(1_000_000))
    assert kernel.value("1 + 1") == "2"


@pytest.mark.parametrize("megabytes", [1, 50])
def test_large_outputs_lose_nothing(kernel, megabytes):
    size = megabytes << 20
    ran = kernel.run(f'println!("{{}}", "ab".repeat({size // 2}));', timeout=180)
    assert ran.stream() == "ab" * (size // 2) + "\n"
    ran = kernel.run(f'wavemesh::notebook::html(&"<i></i>".repeat({size // 7})).display();', timeout=180)
    assert ran.status == "ok"
    assert ran.of("display_data")[0]["data"]["text/html"].count("<i></i>") == size // 7


def test_text_that_is_not_utf8_does_not_stop_the_cell(kernel):
    ran = kernel.run(
        """use std::io::Write;
        std::io::stdout().write_all(b"a\\xffb\\n")?;
        println!("after");"""
    )
    assert ran.status == "ok" and ran.stream() == "a\ufffdb\nafter\n"


def test_characters_of_several_bytes_are_not_torn(kernel):
    ran = kernel.run('for _ in 0..100_000 { print!("é漢🦀"); }')
    assert ran.stream() == "é漢🦀" * 100_000


LATER = """
println!("now");
std::thread::spawn(|| {
    std::thread::sleep(std::time::Duration::from_millis(1500));
    println!("later");
});
"""


def test_a_thread_that_outlives_its_cell_prints_to_that_cell(kernel):
    msg_id = kernel.send(LATER)
    list(kernel.iopub(msg_id))
    kernel.shell(msg_id)
    message = kernel.client.get_iopub_msg(timeout=60)
    assert (message["parent_header"]["msg_id"], message["content"]) == (msg_id, {"name": "stdout", "text": "later\n"})


def test_it_does_so_while_another_cell_runs(kernel):
    msg_id = kernel.send(LATER)
    list(kernel.iopub(msg_id))
    kernel.shell(msg_id)
    other = kernel.send("std::thread::sleep(std::time::Duration::from_secs(3));")
    seen = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "stream":
            seen.append((message["parent_header"]["msg_id"], message["content"]["text"]))
        if message["parent_header"].get("msg_id") == other and message["content"].get("execution_state") == "idle":
            break
    assert seen == [(msg_id, "later\n")]


def test_displays_are_updated_and_cleared_while_the_cell_runs(kernel):
    ran = kernel.run(
        """use wavemesh::notebook;
        println!("before");
        notebook::html("<b>one</b>").display();
        notebook::clear_output(true);
        println!("after");"""
    )
    assert ran.status == "ok", ran.error
    kinds = [m["msg_type"] for m in ran.messages if m["msg_type"] not in ("status", "execute_input")]
    assert kinds == ["stream", "display_data", "clear_output", "stream"]
    display = ran.of("display_data")[0]
    assert display["data"]["text/html"] == "<b>one</b>" and "text/plain" in display["data"]
    assert ran.of("clear_output") == [{"wait": True}]


def test_a_plot_that_ends_its_cell_is_shown_once(kernel):
    ran = kernel.run(
        """let mut once = wavemesh::notebook::LivePlot::new("fit");
        once.push("loss", 2.0);
        once.push("loss", 1.0);
        std::thread::sleep(std::time::Duration::from_millis(700));
        once"""
    )
    assert ran.status == "ok", ran.error
    assert len(ran.of("display_data")) == 1 and ran.of("execute_result") == []
    assert ran.of("update_display_data")[-1]["data"]["text/plain"] == "fit | loss 1 at step 1"
    # In a later cell it is an ordinary value.
    again = kernel.run("once")
    assert [shown["data"]["text/plain"] for shown in again.of("execute_result")] == ["fit | loss 1 at step 1"]


@pytest.mark.parametrize("end", ["", 'Err::<(), _>("no")?;', 'panic!("no");'], ids=["value", "error", "panic"])
def test_a_cell_ends_with_the_last_state_of_its_plot_on_the_page(kernel, end):
    # No point waits half a second for its turn: the last one arrives before the cell is idle, however the cell ends.
    ran = kernel.run(
        f"""let mut last = wavemesh::notebook::LivePlot::new("fit");
        for step in 0..10 {{ last.push("loss", step as f64); }}
        {end}"""
    )
    assert ran.status == ("error" if end else "ok")
    shown = ran.of("display_data") + ran.of("update_display_data")
    assert shown[-1]["data"]["text/plain"] == "fit | loss 9 at step 9"


def test_long_work_of_the_library_shows_a_bar(kernel):
    ran = kernel.run(
        """let work = wavemesh::task::Task::new("long work", 3);
        for _ in 0..3 { work.advance(1)?; std::thread::sleep(std::time::Duration::from_millis(1200)); }
        drop(work);"""
    )
    assert ran.status == "ok", ran.error
    shown = [m["data"]["text/plain"] for m in ran.of("display_data") + ran.of("update_display_data")]
    assert shown and shown[-1].startswith("long work: 100%")


def test_a_progress_bar_updates_one_display(kernel):
    ran = kernel.run(
        """for _ in wavemesh::notebook::progress(0..4) {
            std::thread::sleep(std::time::Duration::from_millis(150));
        }"""
    )
    assert ran.status == "ok", ran.error
    shown, updates = ran.of("display_data"), ran.of("update_display_data")
    assert len(shown) == 1 and updates
    assert {u["transient"]["display_id"] for u in updates} == {shown[0]["transient"]["display_id"]}
