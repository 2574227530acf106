"""The bindings against the real daemon, and against a peer that answers as minimega 3.1.0 was recorded to."""

import base64
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

import megaform  # noqa: E402
import minimega  # noqa: E402

PROGRAM = os.environ.get("MEGAFORM_PROGRAM", str(ROOT / "target" / "debug" / "megaform"))


def missing():
    """What the tests with the real daemon need and this host lacks."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("root")
    if not os.path.exists(PROGRAM):
        lacks.append(PROGRAM)
    if not shutil.which("qemu-system-x86_64"):
        lacks.append("qemu-system-x86_64")
    return lacks


@pytest.fixture()
def daemon(tmp_path):
    lacks = missing()
    if lacks:
        if os.environ.get("CI") == "true":
            pytest.fail("needs " + ", ".join(lacks))
        pytest.skip("needs " + ", ".join(lacks))
    base = tmp_path / "base"
    process = subprocess.Popen(
        [PROGRAM, "--base", str(base), "daemon", "--accel", "tcg"], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    path = base / "minimega"
    for _ in range(400):
        if path.exists():
            break
        time.sleep(0.05)
    yield str(path)
    try:
        mm = megaform.connect(str(path))
        mm._connection.send("clear namespace all")
        mm._connection.receive()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def test_vms_come_and_go(daemon):
    mm = megaform.connect(daemon)
    mm.vm_config_memory(16)
    mm.vm_config_networks(["LAN", "A,00:11:22:33:44:55"])
    mm.vm_config_tags("note", "two words # and more")
    mm.vm_launch_kvm("a[0-1]")
    mm.vm_start("a0")
    rows = {row["name"]: row for row in megaform.as_dict(mm.vm_info()[0])}
    assert rows["a0"]["state"] == "RUNNING" and rows["a1"]["state"] == "BUILDING"
    assert rows["a0"]["vlan"] == "[LAN (101), A (102)]"
    assert json.loads(rows["a0"]["tags"]) == {"note": "two words # and more"}
    assert list(megaform.as_dict(mm.vm_info("summary")[0])[0]) == [
        "id", "name", "state", "type", "uuid", "cc_active", "vlan",
    ]
    with pytest.raises(megaform.Error, match="vm not found: nosuch"):
        mm.vm_start("nosuch")
    mm.vm_config_snapshot(False)
    assert mm.vm_config_snapshot()[0]["Response"] == "false"
    mm.vm_config_networks("B C")
    assert mm.vm_config_networks()[0]["Response"] == "[B C]"
    mm.vm_kill("all")
    mm.vm_flush()
    assert megaform.as_dict(mm.vm_info()[0]) == []


def test_namespaces_nest_and_leave_the_active_one(daemon):
    mm = minimega.connect(daemon, namespace=None)
    mm.vm_config_memory(16)
    with mm.namespace("foo") as foo:
        foo.vm_config_memory(17)
        with foo.namespace("bar") as bar:
            bar.vm_config_memory(18)
            assert bar.vm_config_memory()[0]["Response"] == "18"
        assert foo.vm_config_memory()[0]["Response"] == "17"
    assert mm.vm_config_memory()[0]["Response"] == "16"
    bound = minimega.connect(daemon, namespace="foo")
    assert bound.vm_config_memory()[0]["Response"] == "17"


def test_a_file_is_streamed_and_progress_is_skipped(daemon):
    mm = megaform.connect(daemon)
    content = bytes(range(256)) * 1000
    (pathlib.Path(daemon).parent / "files" / "f").write_bytes(content)
    mm.status_updates("20ms")
    assert mm.shell(["sleep", "0.3"])[0]["Error"] == ""
    parts = [mm.file_stream("f")] + list(mm.streamResponses())
    assert len(parts) == 4
    assert b"".join(base64.b64decode(part[0]["Data"]) for part in parts) == content
    mm.status_updates("0")
def test_arguments_arrive_as_they_are(daemon):
    mm = megaform.connect(daemon)
    for text in ["two words", 'a "b" c', "it's", "back\\slash", "# no comment", "a\tb\nc", "", "\u00e9\u4e16", "[x] {y}", "a=b,c"]:
        assert mm.echo([text])[0]["Response"] == text, repr(text)
    assert mm.echo(["a", "b c", 7])[0]["Response"] == "a b c 7"
    assert mm.echo("sent as it stands")[0]["Response"] == "sent as it stands"


def test_bad_arguments_are_told_before_anything_is_sent(daemon):
    mm = megaform.connect(daemon)
    with pytest.raises(ValueError, match="invalid argument combination"):
        mm.vlans_range(min=5)
    with pytest.raises(ValueError, match="invalid value for true_or_false"):
        mm.vm_config_snapshot("maybe")
    with pytest.raises(ValueError, match="invalid value for summary"):
        mm.vm_info("everything")
    with pytest.raises(ValueError, match="control characters"):
        mm.vm_tag("all", "key", "a\x00b")
    with pytest.raises(TypeError):
        mm.vm_kill()
    assert mm.version()[0]["Response"].startswith("megaform")


def test_no_socket():
    with pytest.raises(FileNotFoundError):
        megaform.connect("/nonexistent/minimega")


class Peer(threading.Thread):
    """Answers each command with lines of its script, on a socket of its own."""

    def __init__(self, path, script):
        super().__init__(daemon=True)
        self.script = script
        self.received = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.start()

    def run(self):
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                command = json.loads(line)["Command"]
                self.received.append(command)
                stream.write("".join(self.script[command]).encode())
                stream.flush()


def entry(**fields):
    return {"Host": "vm", "Response": "", "Header": None, "Tabular": None, "Error": "", "Data": None, **fields}


def response(*entries, more=False, status=False):
    return json.dumps({"Resp": list(entries), "Rendered": "", "More": more, "Status": status}) + "\n"


VERSION = {"version": [response(entry(Response="minimega 3.1.0 x 2026-11-22"))]}


def recorded():
    """The recorded exchanges of one node, by command; the first one of each."""
    script = {}
    for line in (ROOT / "tests" / "data" / "exchanges.jsonl").read_text().splitlines():
        row = json.loads(line)
        try:
            command = json.loads(row["request"])["Command"]
        except (ValueError, TypeError, KeyError):
            continue
        answers = row["responses"]
        script.setdefault(command, [answers] if isinstance(answers, str) else answers)
    return script


def test_against_what_minimega_was_recorded_to_answer(tmp_path):
    Peer(tmp_path / "s", recorded())
    mm = minimega.connect(str(tmp_path / "s"))
    assert mm.version()[0]["Response"].startswith("minimega 3.1.0")
    assert mm.vm_config_memory()[0]["Response"] == "2048"
    with pytest.raises(minimega.Error, match="config nosuch does not exist"):
        mm.vm_config_restore("nosuch")
    assert minimega.as_dict(mm.vm_info()[0]) == []
    assert minimega.as_dict(mm.vlans()[0])[1] == {"alias": "LAN", "vlan": "101"}


class Replay(threading.Thread):
    """Answers each command with the recorded answers of one row, in order, and insists on the row's command."""

    def __init__(self, path, rows):
        super().__init__(daemon=True)
        self.rows = rows
        self.problem = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.start()

    def run(self):
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rwb") as stream:
            for command, answers in self.rows:
                line = stream.readline()
                if json.loads(line)["Command"] != command:
                    self.problem = "expected %r, got %r" % (command, line)
                    return
                for answer in answers:
                    stream.write(answer.encode())
                stream.flush()


def test_every_recorded_answer_of_minimega_is_understood(tmp_path):
    rows = [("version", VERSION["version"])]
    for line in (ROOT / "tests" / "data" / "exchanges.jsonl").read_text().splitlines():
        row = json.loads(line)
        answers = row["responses"]
        try:
            request = json.loads(row["request"])
        except ValueError:
            continue
        # Not what became a pipe, nor what ended the connection.
        if row["n"] == 0 or row["eof"] or not isinstance(request, dict) or list(request) != ["Command"]:
            continue
        if request["Command"].strip() and answers:
            rows.append((request["Command"], answers))
    assert len(rows) > 350
    replay = Replay(tmp_path / "s", rows)
    mm = minimega.connect(str(tmp_path / "s"))
    errors = 0
    for command, answers in rows[1:]:
        expected = [json.loads(answer)["Resp"] or [] for answer in answers]
        mm._connection.send(command)
        found = []
        try:
            found.append(mm._checked(mm._connection.receive()))
            while mm.moreResponses:
                found.append(mm._checked(mm._connection.receive()))
        except minimega.Error as error:
            texts = [entry["Error"] for entries in expected for entry in entries if entry["Error"]]
            assert str(error) in texts, command
            assert not mm.moreResponses
            errors += 1
            continue
        assert [[{k: v for k, v in e.items() if k != "More"} for e in entries] for entries in found] == expected
    assert errors > 40
    assert replay.problem is None


def test_progress_is_never_taken_for_an_answer(tmp_path):
    status = response(entry(Response="not this"), status=True)
    Peer(tmp_path / "s", {**VERSION, "vm info": [status, status, response(entry(Response="this"))]})
    mm = minimega.connect(str(tmp_path / "s"))
    assert [r["Response"] for r in mm.vm_info()] == ["this"]
    assert not mm.moreResponses


def test_after_a_timeout_no_command_gets_anothers_answer(tmp_path):
    Peer(tmp_path / "s", {**VERSION, "vm info": [], "history": [response(entry(Response="h"))]})
    mm = minimega.connect(str(tmp_path / "s"), timeout=0.2)
    with pytest.raises(socket.timeout):
        mm.vm_info()
    with pytest.raises(minimega.Error, match="connect again"):
        mm.history()


def test_streams_are_read_before_the_next_command(tmp_path):
    lines = [response(entry(Response=str(n)), more=n < 3) for n in range(1, 4)]
    status = response(entry(Response="50 %"), status=True)
    script = {**VERSION, "vm info": [lines[0], status, lines[1], lines[2]], "history": [response(entry(Response="h"))]}
    Peer(tmp_path / "s", script)
    mm = minimega.connect(str(tmp_path / "s"))
    first = mm.vm_info()
    assert first[0]["Response"] == "1" and first[0]["More"] and mm.moreResponses
    with pytest.raises(minimega.Error, match="more responses to be read from last command"):
        mm.history()
    assert [r[0]["Response"] for r in mm.streamResponses()] == ["2", "3"]
    with pytest.raises(minimega.Error, match="no responses to stream from last command"):
        mm.streamResponses()
    mm.vm_info()
    minimega.discard(mm)
    assert mm.history()[0]["Response"] == "h"


def test_an_error_in_a_stream_spoils_nothing_after_it(tmp_path):
    script = {
        **VERSION,
        "vm info": [
            response(entry(Response="1"), more=True),
            response(entry(Error="bad"), more=True),
            response(entry(Response="3")),
        ],
        "history": [response(entry(Response="h"))],
    }
    Peer(tmp_path / "s", script)
    mm = minimega.connect(str(tmp_path / "s"))
    mm.vm_info()
    with pytest.raises(minimega.Error, match="bad"):
        list(mm.streamResponses())
    assert mm.history()[0]["Response"] == "h"
