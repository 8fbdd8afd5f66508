# SPDX-License-Identifier: Apache-2.0
"""The messages between engine and supervisor: one table, and the page that shows it."""

from __future__ import annotations

from cli_under_test import ROOT

from lmcache_plugin_adapter.contract import wire


def test_each_letter_has_one_meaning() -> None:
    """One letter each, in capitals, named as the constant of the module is."""
    letters = [message.letter for message in wire.MESSAGES]
    assert len(set(letters)) == len(letters)
    for message in wire.MESSAGES:
        assert len(message.letter) == 1
        assert getattr(wire, message.name) is message.letter


def test_the_page_shows_the_table() -> None:
    """As it is generated."""
    page = (ROOT / "docs" / "how-it-works" / "architecture.md").read_text()
    assert page.split("<!-- wire -->\n")[1].split("\n<!-- end of wire -->")[0] == wire.describe()


def test_a_line_is_a_letter_and_a_value() -> None:
    """As the engine reads it."""
    assert wire.line(wire.READY, 42) == b"H42\n"
    assert wire.line(wire.FINISHED) == b"B\n"
