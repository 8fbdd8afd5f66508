# SPDX-License-Identifier: Apache-2.0
"""Settings that have no effect without another one, or beside it: one line each."""

from __future__ import annotations

import pytest

from lmcache_plugin_adapter.configuration.settings import read_settings

WHERE = "extra_config.runtime_plugins"
WITH_ALWAYS = (
    "together with 'restart: always': the plugin runs every 30 s, and 'restart' has no effect"
)
LESS = "accepted is less than 'every' (60 s); 0 stays in force"


def texts(section: dict[str, object]) -> list[str]:
    """Return the problems of the settings."""
    return [problem.text for problem in read_settings({"runtime_plugins": section}, {})[1]]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"every": "30s", "restart": "always"},
            f"Cannot use '{WHERE}.every' {WITH_ALWAYS}",
        ),
        (
            {"restart": "always", "plugins": {"all_x": {"every": 30}}},
            f"Cannot use '{WHERE}.plugins.all_x.every' {WITH_ALWAYS}",
        ),
        (
            {"plugins": {"all_x": {"timeout": "5s"}}},
            f"Setting '{WHERE}.plugins.all_x.timeout' has no effect without 'every'",
        ),
        ({"watchdog": "5s"}, f"Setting '{WHERE}.watchdog' has no effect without 'notify'"),
        ({"jitter": "5s"}, f"Setting '{WHERE}.jitter' has no effect without 'every'"),
        (
            {"plugins": {"all_x": {"every": "1m", "jitter": "1m"}}},
            f"Cannot use '{WHERE}.plugins.all_x.jitter': found '1m', {LESS}",
        ),
        (
            {"notify": True, "plugins": {"all_x": {"env": {"NOTIFY_SOCKET": "x"}}}},
            f"Setting '{WHERE}.plugins.all_x.env.NOTIFY_SOCKET' has no effect with 'notify'",
        ),
        (
            {"notify": True, "plugins": {"all_x": {"watchdog": 5, "env": {"WATCHDOG_PID": 1}}}},
            f"Setting '{WHERE}.plugins.all_x.env.WATCHDOG_PID' has no effect with 'watchdog'",
        ),
    ],
)
def test_a_contradiction_is_one_line(section: dict[str, object], expected: str) -> None:
    """The line has the full key, and what happens."""
    assert texts(section) == [expected]


@pytest.mark.parametrize(
    "section",
    [
        {"every": "30s", "jitter": "5s", "timeout": "10s"},
        {"timeout": "10s", "plugins": {"all_x": {"every": "1m"}}},
        {"notify": True, "watchdog": 5, "ready_timeout": 5},
        {"every": "off", "restart": "always"},
        {"plugins": {"all_x": {"env": {"NOTIFY_SOCKET": "x", "WATCHDOG_PID": 1}}}},
        {"notify": True, "plugins": {"all_x": {"env": {"WATCHDOG_USEC": 1}}}},
        {"every": "5m", "plugins": {"all_x": {"every": False, "restart": "always"}}},
        {"restart": "always", "plugins": {"all_x": {"every": "1m", "restart": "on-failure"}}},
    ],
)
def test_what_goes_together_is_no_problem(section: dict[str, object]) -> None:
    """General settings may be meant for plugins that complete them."""
    assert texts(section) == []


def test_a_jitter_that_is_too_long_does_not_count() -> None:
    """The plugin runs on schedule, without."""
    settings, _ = read_settings({"runtime_plugins": {"every": 1, "jitter": 1}}, {})
    assert (settings.defaults.every, settings.defaults.jitter) == (1, 0)


def test_a_general_timeout_is_for_scheduled_plugins_alone() -> None:
    """Others run on for as long as they like."""
    section = {"timeout": "10s", "plugins": {"all_x": {"every": "1m"}}}
    settings, _ = read_settings({"runtime_plugins": section}, {})
    assert settings.for_plugin("all_x").timeout == 10
    assert settings.defaults.timeout is None
