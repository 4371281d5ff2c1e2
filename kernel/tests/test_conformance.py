"""Runs all of jupyter_kernel_test, over both transports."""

import jupyter_kernel_test
import pytest

from driver import PATIENCE, manager


class Conformance:
    kernel_name = "wavemesh"
    language_name = "rust"
    file_extension = ".rs"
    code_hello_world = 'println!("hello, world");'
    code_stderr = 'eprintln!("a warning");'
    completion_samples = [{"text": "let some_name = 1; some_na", "matches": ["some_name"]}, {"text": "std::f64::consts::P"}]
    complete_code_samples = ["1 + 1", "fn f() {}", ":dep rand", "let x = vec![1, 2];", "// only a comment"]
    incomplete_code_samples = ["fn main() {", "let x =", 'let s = "abc', "vec![1,", "/* abc"]
    invalid_code_samples = ["fn 3() {}", "foo(]", "}", "let x = ;"]
    code_page_something = "?std::vec::Vec"
    code_generate_error = 'panic!("on purpose");'
    code_execute_result = [
        {"code": "6 * 7", "result": "42"},
        {"code": '"a".repeat(3)', "result": '"aaa"'},
        {"code": "16 / 4", "result": "4"},
    ]
    code_display_data = [{"code": 'wavemesh::notebook::html("<b>bold</b>").display();', "mime": "text/html"}]
    code_history_pattern = "6 ? 7"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "std::vec::Vec"
    code_clear_output = "wavemesh::notebook::clear_output(false);"
    transport = "tcp"

    @classmethod
    def setUpClass(cls):
        cls.km = manager(cls.transport)
        cls.km.start_kernel()
        cls.kc = cls.km.client()
        cls.kc.start_channels()
        cls.kc.wait_for_ready(timeout=30)
        # The suite allows 15 s for a cell, not for the first start of a compiler on a busy machine.
        cls.kc.execute_interactive("()", timeout=PATIENCE, output_hook=lambda message: None)


class TestTcp(Conformance, jupyter_kernel_test.KernelTests):
    pass


class TestIpc(Conformance, jupyter_kernel_test.KernelTests):
    transport = "ipc"


class TestWelcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = "wavemesh"
    support_iopub_welcome = True


@pytest.mark.parametrize("suite", [TestTcp, TestIpc])
def test_the_suite_has_a_sample_for_every_part(suite):
    """Without a sample the suite skips a part; no part may be skipped."""
    base = jupyter_kernel_test.KernelTests
    samples = [name for name in vars(base) if name.startswith(("code_", "completion_", "complete_", "incomplete_", "invalid_", "supported_"))]
    assert len(samples) >= 14
    assert [name for name in samples if not getattr(suite, name)] == []
