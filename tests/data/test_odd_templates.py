"""A chat template that loops for ever, grows without bound, reads files, draws at random or is none: one message."""

import json
import threading
import time
from pathlib import Path

import pytest

from indelible.corpora.messages import Message
from indelible.data import chat_template
from indelible.data.chat_template import open_template
from indelible.data.time_limit import TooSlow, time_limit
from indelible.errors import UserError

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TURNS = [Message("user", "hello there"), Message("assistant", "ok then")]
FOR_EVER = "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"
SILENT = "{% set ns = namespace(x='') %}{% for i in range(99999) %}{% for j in range(99999) %}{% set ns.x = j %}" \
         "{% endfor %}{% endfor %}"  # fmt: skip


def said_of(folder: Path, content: bytes, name: str = "chat_template.jinja") -> str:
    """What a conversation comes to, or the message."""
    (folder / name).write_bytes(content)
    try:
        template = open_template(folder)
        return "no template" if template is None else template.render(TURNS).text
    except UserError as error:
        return str(error)


def test_a_plain_one_is_read(tmp_path: Path) -> None:
    assert said_of(tmp_path, PLAIN.encode()) == "user: hello there\nassistant: ok then\n"
    assert said_of(tmp_path, b"\xef\xbb\xbf" + PLAIN.encode()) == "user: hello there\nassistant: ok then\n"
    assert said_of(tmp_path, ("{{ 2 * 3 }}{{ '-' * 3 }}{{ 2 ** 3 }}{{ '%3d' % 7 }}" + PLAIN).encode()) == (
        "6---8  7user: hello there\nassistant: ok then\n"
    )


@pytest.mark.parametrize("loop", [FOR_EVER, SILENT], ids=["with output", "without"])
def test_one_that_loops_for_ever_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setattr(chat_template, "MOST_SECONDS", 0.3)
    begun = time.monotonic()
    assert "is not done with a conversation of 2 message(s) after 0.3 s" in said_of(tmp_path, (loop + PLAIN).encode())
    assert time.monotonic() - begun < 20


def test_one_that_writes_without_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MOST_CHARACTERS", 100_000)
    text = "{% for i in range(99999) %}{{ 'aaaaaaaaaa' }}{% endfor %}" + PLAIN
    assert "writes more than 100,000 characters" in said_of(tmp_path, text.encode())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ 'a' * 10000000000 }}", "something huge"),
        ("{{ 10000000000 * 'a' }}", "something huge"),
        ("{{ 10 ** 100000000 }}", "something huge"),
        ("{{ '%999999999d' % 1 }}", "huge width"),
        ("{{ '%*d' % (999999999, 1) }}", "huge width"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "maximum recursion depth"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import '/etc/passwd' as x %}", "no loader"),
        ("{% extends '/etc/passwd' %}", "no loader"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% set _ = messages.append(1) %}", "unsafe"),
        ("{{ raise_exception('no\nway') }}", "refuses a conversation of user, assistant: no."),
        ("{{ raise_exception() }}", "missing 1 required"),
        ("{{ strftime_now('%Y') }}", "must not depend on the day"),
        ("{{ lipsum() }}", "must not depend on chance"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ x.y }}", "'x' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ '<\\ud800>' }}", "half of a pair of surrogates"),
        ("{% for %}", "cannot be read"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be read"),
        ("{% generation %}", "cannot be read"),
    ],
)
def test_what_one_may_not_do_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in said_of(tmp_path, (text + PLAIN).encode())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("caf\xe9".encode("latin-1"), "not UTF-8 (byte 0xe9"),
        (PLAIN.encode("utf-16"), "UTF-16"),
        (PLAIN.replace("\n", "\0").encode(), "zero bytes"),
        (b"", "no template"),
        (b" \n", "no template"),
    ],
)
def test_a_file_that_is_no_template(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in said_of(tmp_path, content)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([], "found a list, expected an object of settings"),
        ("x", "found a str, expected an object of settings"),
        ({"chat_template": [1, {"name": "default"}]}, "no template"),
        ({"chat_template": [1, {"name": "default", "template": PLAIN}]}, "user: hello there"),
        ({"chat_template": 5}, "no template"),
        ({"chat_template": PLAIN, "bos_token": {"content": 3}, "x_token": []}, "user: hello there"),
    ],
)
def test_settings_that_are_odd(tmp_path: Path, settings: object, reason: str) -> None:
    assert reason in said_of(tmp_path, json.dumps(settings).encode(), "tokenizer_config.json")


def work_for_ever() -> None:
    with time_limit(0.1):
        while True:
            pass


def test_a_limit_that_has_not_passed_raises_nothing_later() -> None:
    for _ in range(3):
        with time_limit(0.2):
            pass
    time.sleep(1.2)
    with pytest.raises(TooSlow):
        work_for_ever()
    time.sleep(0.7)  # and nothing comes twice


def test_a_limit_holds_in_the_thread_that_set_it() -> None:
    ends = []

    def work() -> None:
        try:
            work_for_ever()
        except TooSlow:
            ends.append("too slow")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert ends == ["too slow"]
