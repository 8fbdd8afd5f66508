# SPDX-License-Identifier: Apache-2.0
"""Lines with their level."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("function", "mark"),
    [(kit.error, "<3>"), (kit.warning, "<4>"), (kit.info, "<6>"), (kit.debug, "<7>")],
)
def test_each_level_has_its_mark(
    function: Callable[[object], None], mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On every line of a text."""
    function("one")
    function("two\nthree\r\n")
    function(ValueError("four"))
    function("")
    expected = [f"{mark}{text}" for text in ("one", "two", "three", "four", "")]
    assert capsys.readouterr().out.splitlines() == expected


def test_a_text_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that lines of several threads do not mix."""
    writes: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Stream())
    kit.info("one\ntwo")
    assert writes == ["<6>one\n<6>two\n"]


def test_what_cannot_be_encoded_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not lost, and not an exception."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    kit.info("caf\u00e9 \udcff")
    assert raw.getvalue() == b"<6>caf\\xe9 \\udcff\n"


def test_nobody_who_listens_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stdout, a pipe that nobody reads, none at all."""
    with io.StringIO() as closed:
        pass
    for stream in (closed, None, open("/dev/full", "w")):  # noqa: SIM115 - closed below
        monkeypatch.setattr(sys, "stdout", stream)
        kit.info("text")
        if stream is not None:
            try:
                stream.close()
            except OSError:
                pass


def test_logging_has_the_same_levels(capsys: pytest.CaptureFixture[str]) -> None:
    """Also for a traceback."""
    logger = logging.Logger("test")
    logger.addHandler(kit.logging_handler())
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logger.log(level, "text %d", level)
    try:
        int("wrong")
    except ValueError:
        logger.exception("failed")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == ["<7>text 10", "<6>text 20", "<4>text 30", "<3>text 40", "<3>text 50"]
    assert lines[5] == "<3>failed"
    assert lines[-1].startswith("<3>ValueError: invalid literal")
    assert all(line.startswith("<3>") for line in lines[5:])


def test_the_log_of_an_engine_has_the_levels(run_plugin: Any, tmp_path: Path) -> None:
    """Each line as a record of its level."""
    path = tmp_path / "scheduler_levels.py"
    path.write_text(
        "from lmcache_plugin_adapter import kit\n"
        "for name in ('error', 'warning', 'info', 'debug'):\n"
        "    getattr(kit, name)(f'{name} one\\n{name} two')\n"
        "print('plain')\n"
    )
    plugin = run_plugin(path)
    assert plugin.wait_exit() == 0
    expected = [
        (name, f"{name} {number}")
        for name in ("error", "warning", "info", "debug")
        for number in ("one", "two")
    ]
    assert plugin.lines == [*expected, ("info", "plain")]
