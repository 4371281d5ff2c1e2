"""Messages from anyone but the frontend have no effect, and cost the kernel nothing."""

import json
import os
import random
import socket
import struct
import time

import psutil
import pytest
import zmq
from jupyter_client.session import Session

from driver import Kernel

CHANNELS = ["shell", "control", "stdin", "iopub", "hb"]
DELIMITER = b"<IDS|MSG>"


@pytest.fixture(params=["tcp", "ipc"])
def watched(request, tmp_path):
    """A kernel with a readable log."""
    log = open(tmp_path / "log", "w+")
    with Kernel(transport=request.param, stderr=log) as kernel:
        kernel.log = lambda: (tmp_path / "log").read_text()
        yield kernel
    log.close()


def endpoint(kernel, channel):
    info = kernel.connection()
    port = info[f"{channel}_port"]
    return f"ipc://{info['ip']}-{port}" if info["transport"] == "ipc" else f"tcp://{info['ip']}:{port}"


def dealer(kernel, channel):
    connected = zmq.Context.instance().socket(zmq.DEALER)
    connected.linger = 2000
    connected.connect(endpoint(kernel, channel))
    return connected


def session_of(kernel, key=None):
    """Another session with the frontend's key, or with a guessed key."""
    return Session(key=key or kernel.client.session.key)


def frames(kernel, kind, content, key=None):
    """A signed message, with the frontend's key or with another one."""
    session = session_of(kernel, key)
    return session.serialize(session.msg(kind, content))


def works(kernel):
    assert kernel.ask("kernel_info_request", timeout=20)["content"]["status"] == "ok"
    assert kernel.control("kernel_info_request", timeout=20)["content"]["status"] == "ok"
    assert kernel.value("40 + 2") == "42"


def test_forged_messages_have_no_effect_and_are_logged(watched):
    process = watched.process
    attacker, controller = dealer(watched, "shell"), dealer(watched, "control")
    forged = frames(watched, "execute_request", {"code": "std::process::exit(3)"}, key=b"guessed")
    attacker.send_multipart(forged)
    controller.send_multipart(frames(watched, "shutdown_request", {"restart": False}, key=b"guessed"))
    # A valid signature, but for other content.
    signed = frames(watched, "kernel_info_request", {})
    signed[-1] = b'{"code": "evil"}'
    attacker.send_multipart(signed)
    unsigned = frames(watched, "kernel_info_request", {})
    unsigned[1] = b""
    attacker.send_multipart(unsigned)
    assert attacker.poll(1000) == 0 and controller.poll(100) == 0
    assert process.is_running()
    works(watched)
    assert watched.log().count("its signature is wrong") == 4
    attacker.close(), controller.close()


def test_a_message_that_was_recorded_cannot_be_sent_again(watched):
    attacker = dealer(watched, "shell")
    recorded = frames(watched, "kernel_info_request", {})
    attacker.send_multipart(recorded)
    assert attacker.poll(10_000) == zmq.POLLIN
    attacker.recv_multipart()
    for _ in range(5):
        attacker.send_multipart(recorded)
    assert attacker.poll(1000) == 0
    assert "it was sent before" in watched.log()
    works(watched)
    attacker.close()


def test_ten_thousand_malformed_messages_are_survived(watched):
    works(watched)
    before = watched.process.memory_info().rss
    chance = random.Random(1)
    noise = lambda: chance.randbytes(chance.randrange(200))  # noqa: E731
    sockets = {name: dealer(watched, name) for name in ["shell", "control", "stdin"]}
    for number in range(10_000):
        attacker = sockets[chance.choice(list(sockets))]
        valid = frames(watched, "execute_request", {"code": "panic!()"}, key=b"guessed") if number % 4 > 1 else []
        kind = number % 4
        if kind == 0:
            message = [noise() for _ in range(chance.randrange(1, 9))]
        elif kind == 1:
            message = [DELIMITER] + [noise() for _ in range(chance.randrange(0, 7))]
        elif kind == 2:
            message = valid[: chance.randrange(1, len(valid))]
        else:
            valid[chance.randrange(len(valid))] = noise()
            message = valid
        attacker.send_multipart(message)
    works(watched)
    # A line in the log for each message would be an attack too.
    assert 10 <= watched.log().count("dropped a message") < 100
    assert watched.process.memory_info().rss - before < 200 << 20
    for attacker in sockets.values():
        attacker.close()


def test_signed_messages_with_odd_content_are_answered_or_passed_over(watched):
    session = session_of(watched)
    attacker = dealer(watched, "shell")
    kinds = ["execute", "complete", "inspect", "history", "is_complete", "comm_info", "kernel_info", "connect", "interrupt"]
    odd = [{}, {"code": 5}, {"code": None, "cursor_pos": -3}, {"code": "é", "cursor_pos": 10**12}, {"n": -1, "hist_access_type": []}]
    for kind in kinds:
        for content in odd:
            message = session.msg(f"{kind}_request", content)
            attacker.send_multipart(session.serialize(message))
            assert attacker.poll(20_000) == zmq.POLLIN, (kind, content)
            assert attacker.recv_multipart()[-4] is not None
    for parts in [[b"[]", b"{}", b"{}", b"{}"], [b"{}", b"{}", b"{}", b"{}"], [b"\xff", b"{}", b"{}", b"{}"], [b'{"msg_type": 3}', b"1", b"2", b"3"]]:
        attacker.send_multipart([DELIMITER, session.sign(parts), *parts])
    works(watched)
    assert session.key.decode() not in watched.log()
    attacker.close()


def raw(kernel, channel):
    info = kernel.connection()
    if info["transport"] == "ipc":
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(f"{info['ip']}-{info[f'{channel}_port']}")
    else:
        connected = socket.create_connection((info["ip"], info[f"{channel}_port"]))
    return connected


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)


def ready(kind, identity=b""):
    body = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    body += b"\x08Identity" + struct.pack(">I", len(identity)) + identity
    return bytes([4, len(body)]) + body


@pytest.mark.parametrize("channel", CHANNELS)
def test_bytes_that_are_no_zmtp_end_only_their_own_connection(watched, channel):
    kind = {"iopub": b"SUB", "hb": b"REQ"}.get(channel, b"DEALER")
    huge = b"\x02" + struct.pack(">Q", 2**62)
    chance = random.Random(2)
    for attack in [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        chance.randbytes(5000),
        GREETING[:30],
        GREETING + b"\x04\xff" + bytes(10),
        GREETING + b"\x04\x08\x05READY\xff\xff",
        GREETING + ready(b"PULL"),
        GREETING + ready(kind, b"\x00forged"),
        # A frame that claims to be larger than any memory.
        GREETING + ready(kind) + huge,
        GREETING + ready(kind) + huge + bytes(1000),
        # More frames than any message has.
        GREETING + ready(kind) + b"\x01\x00" * 100_000,
        GREETING + ready(kind) + b"\xf0\x00",
    ]:
        with raw(watched, channel) as connected:
            try:
                connected.sendall(attack)
                connected.settimeout(0.05)
                while connected.recv(65536):
                    pass
            except (TimeoutError, ConnectionError, BrokenPipeError):
                pass
    works(watched)


def test_many_idle_connections_do_not_keep_the_frontend_out(watched):
    held = [raw(watched, "shell") for _ in range(200)]
    works(watched)
    for connected in held:
        connected.close()


def test_the_kernel_listens_where_it_was_told_and_nowhere_else(watched):
    watched.value("1")
    info = watched.connection()
    listening = {
        (c.laddr.ip, c.laddr.port)
        for process in [watched.process, *watched.process.children(recursive=True)]
        for c in process.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    }
    if info["transport"] == "ipc":
        assert listening == set()
        for channel in CHANNELS:
            assert os.stat(f"{info['ip']}-{info[f'{channel}_port']}").st_mode & 0o077 == 0
    else:
        assert listening == {(info["ip"], info[f"{channel}_port"]) for channel in CHANNELS}


def test_the_key_is_nowhere_to_be_seen(watched):
    watched.run("panic!()")
    watched.value("1")
    key = watched.client.session.key.decode()
    assert len(key) > 20
    assert key not in watched.log()
    # The environment that a cell can print does not hold the key either.
    shown = watched.run('for (k, v) in std::env::vars() { println!("{k}={v}"); }').stream()
    assert "PATH=" in shown and key not in shown


def test_a_frontend_that_stops_reading_does_not_stop_the_others(watched):
    """A subscriber never reads: the cell still ends, and the reading frontend gets every byte."""
    sleeper = raw(watched, "iopub")
    sleeper.sendall(GREETING + ready(b"SUB") + b"\x00\x01\x01")
    time.sleep(0.5)
    ran = watched.run('let line = "x".repeat(1 << 20); for _ in 0..300 { println!("{line}"); }', timeout=180)
    assert ran.status == "ok" and len(ran.stream()) == 300 * ((1 << 20) + 1)
    assert watched.process.memory_info().rss < 1 << 30
    works(watched)
    sleeper.close()


def test_the_heartbeat_answers_while_a_cell_runs(watched):
    beat = zmq.Context.instance().socket(zmq.REQ)
    beat.linger = 0
    beat.connect(endpoint(watched, "hb"))
    msg_id = watched.send('println!("begun"); std::thread::sleep(std::time::Duration::from_secs(2));')
    watched.wait_until_running(msg_id)
    for payload in [b"ping", b"", json.dumps({"any": "thing"}).encode()]:
        beat.send(payload)
        assert beat.poll(1000) == zmq.POLLIN and beat.recv() == payload
    watched.shell(msg_id)
    beat.close()
