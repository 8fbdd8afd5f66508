# SPDX-License-Identifier: Apache-2.0
"""The ring of faults: one line a case, for this launcher and for LMCache's own."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import MODULES, UnderTest, World, default_python

GROUPS = {
    "test_fault_engine": "The engine ends",
    "test_fault_host": "The engine lives on",
    "test_fault_descriptors": "The engine closes what is not its own",
    "test_fault_supervisor": "The supervisor ends",
    "test_fault_operator": "An operator asks for something",
    "test_fault_plugin": "A plugin misbehaves",
    "test_fault_containment": "A plugin takes too much",
    "test_fault_users": "A plugin of another user",
    "test_fault_daemons": "Daemons and unmarked processes",
    "test_fault_adversary": "The engine is hostile",
    "test_fault_limits": "A run exceeds a limit",
    "test_fault_output": "Output is hostile",
    "test_fault_package": "The package is replaced",
    "test_fault_system": "The system",
    "test_fault_contract": "What runs, and with what",
}
"""The parts of the table, in its order."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say what is tried, and where the table goes."""
    group = parser.getgroup("faults")
    group.addoption("--launcher", choices=sorted(MODULES), default="ours", help="what is tried")
    group.addoption("--engine-python", help="the interpreter of the engines")
    group.addoption("--table", help="write the outcome of each case to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", "fault(guarantees, title): a case and what it shows")
    config.addinivalue_line("markers", "ours_only(reason): LMCache's launcher has no such thing")


@pytest.fixture(scope="session")
def under_test(request: pytest.FixtureRequest) -> UnderTest:
    """The launcher that is tried."""
    name = request.config.getoption("--launcher")
    python = request.config.getoption("--engine-python") or default_python(name)
    return UnderTest(name, MODULES[name], python)


@pytest.fixture
def world(under_test: UnderTest, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world for one case, in which nothing may be left."""
    alone = request.node.get_closest_marker("ours_only")
    if alone is not None and not under_test.ours:
        pytest.skip(alone.args[0])
    # Not below pytest's directory, which only root may enter.
    directory = Path(tempfile.mkdtemp(prefix="fault-"))
    directory.chmod(0o755)
    one = World(directory, under_test)
    yield one
    left = one.leave()
    request.node.user_properties.append(("detail", one.detail))
    failed = request.node.stash.get(FAILED, False)
    if failed:
        print(one.log())
    shutil.rmtree(directory, ignore_errors=True)
    if left and not failed:
        pytest.fail("; ".join(left), pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Number the cases in the order of their files."""
    for number, item in enumerate(items):
        item.user_properties.append(("order", number))


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> pytest.TestReport:
    """Note what a case is, for its line."""
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    if call.when == "setup":
        mark = item.get_closest_marker("fault")
        title, guarantees = item.name, ""
        if mark is not None:
            guarantees, title = mark.args
        if hasattr(item, "callspec") and "case" in item.callspec.params:
            title = title.format(item.callspec.id)
        item.user_properties += [("guarantees", guarantees), ("title", title)]
        report.user_properties = item.user_properties
    return report


class Lines:
    """Collects the outcome of each case, where all workers report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.cases: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one outcome; a failure of any phase is the case's."""
        module = Path(report.nodeid.split("::")[0]).stem
        if module not in GROUPS:
            return
        case = self.cases.setdefault(report.nodeid, {"group": GROUPS[module], "outcome": "passed"})
        case.update({key: str(value) for key, value in report.user_properties})
        if report.failed:
            case["outcome"] = "failed"
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash is not None else str(report.longrepr)
            case.setdefault("reason", text.split("\n")[0].removeprefix("AssertionError: "))
        elif report.skipped and case["outcome"] == "passed":
            case["outcome"] = "skipped"
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            case["reason"] = reason.removeprefix("Skipped: ")

    def ordered(self) -> list[dict[str, str]]:
        """Return the cases in the table's order."""
        order = list(GROUPS.values())
        return [
            {"id": key, **case}
            for key, case in sorted(
                self.cases.items(),
                key=lambda item: (order.index(item[1]["group"]), int(item[1].get("order", 0))),
            )
        ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the lines, and write the table that was asked for."""
        group = ""
        words = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}
        for case in self.ordered():
            if case["group"] != group:
                group = case["group"]
                terminalreporter.section(group)
            note = case.get("reason") or case.get("detail", "")
            line = f"{words[case['outcome']]} {case.get('guarantees', ''):8} {case.get('title')}"
            terminalreporter.line(f"{line} - {note}" if note else line)
        path = self._config.getoption("--table")
        if path:
            Path(path).write_text(json.dumps(self.ordered(), indent=1))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Collect where the reports arrive: not in xdist's workers."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        session.config.pluginmanager.register(Lines(session.config), "fault-lines")
