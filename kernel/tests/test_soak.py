"""Many cells, interrupts and deaths of the user's process: later cells are right, and nothing is left behind."""

import os
import random
import time

from driver import Kernel

CELLS, INTERRUPTS, KILLS = (int(os.environ.get(name, short)) for name, short in
                            [("SOAK_CELLS", 60), ("SOAK_INTERRUPTS", 5), ("SOAK_KILLS", 3)])


def open_files(process):
    return process.num_fds()


def test_many_cells_leave_no_memory_and_no_files():
    with Kernel() as kernel:
        process = kernel.process

        def burst(count, start):
            for i in range(start, start + count):
                assert kernel.value(f'let v{i} = {i} * 2; println!("{{}}", "x".repeat(1000)); v{i}') == str(i * 2)
            return process.memory_info().rss, open_files(process), len(process.children(recursive=True))

        memory, files, children = burst(CELLS // 2, 0)
        after_memory, after_files, after_children = burst(CELLS // 2, CELLS)
        print(f"{CELLS} cells: {memory >> 20} MB then {after_memory >> 20} MB, {files} then {after_files} files")
        assert after_memory <= memory * 1.1
        assert after_files <= files + 2
        assert after_children <= children


def test_interrupts_lose_nothing_but_what_is_announced():
    chance = random.Random(3)
    with Kernel() as kernel:
        kernel.value("fn double(x: i64) -> i64 { x * 2 }")
        for i in range(INTERRUPTS):
            msg_id = kernel.send('println!("begun"); loop { std::thread::sleep(std::time::Duration::from_millis(1)); }')
            kernel.wait_until_running(msg_id)
            time.sleep(chance.random() * 0.2)
            kernel.manager.interrupt_kernel()
            assert kernel.shell(msg_id)["content"]["status"] == "error"
            assert kernel.value(f"double({i})") == str(2 * i)


def test_deaths_of_the_child_are_reported_and_survived():
    with Kernel() as kernel:
        kernel.value("fn double(x: i64) -> i64 { x * 2 }")
        for i in range(KILLS):
            kernel.value(f"let lost_{i} = {i};")
            ran = kernel.run("let own = std::process::id(); unsafe { kill(own as i32, 9) }; extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }"
                             .replace('extern "C"', 'unsafe extern "C"'))
            assert ran.status == "error"
            said = "\n".join(ran.error["traceback"]) + ran.error["evalue"]
            assert f"lost_{i}" in said, said
            assert kernel.value(f"double({i})") == str(2 * i)
