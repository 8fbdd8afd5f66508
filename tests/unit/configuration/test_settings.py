# SPDX-License-Identifier: Apache-2.0
"""Settings: defaults, merging, and what is said about values that cannot be used."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.configuration.exec_limits import EXEC_STRING_LIMIT
from lmcache_plugin_adapter.configuration.settings import (
    BackoffSettings,
    LogFiles,
    RateLimit,
    Settings,
    read_settings,
)
from lmcache_plugin_adapter.configuration.settings_table import PLUGIN_KEY, PREFIX, SETTINGS
from lmcache_plugin_adapter.contract.frozen import replaced

if TYPE_CHECKING:
    from lmcache_plugin_adapter.messages.problem import Problem

DEFAULTS = read_settings(None, {})[0]


def read(section: object) -> tuple[Settings, list[Problem]]:
    """Read what stands under ``runtime_plugins``, in an environment of its own."""
    return read_settings({"runtime_plugins": section}, {"HOME": "/home/me", "LOGS": "/logs"})


def one_problem(section: object) -> Problem:
    """Return the only problem of settings that change nothing."""
    settings, problems = read(section)
    assert replaced(settings, plugins={}) == DEFAULTS
    assert len(problems) == 1, problems
    return problems[0]


def test_defaults_are_those_of_the_design() -> None:
    """The documented defaults, spelled out once more on purpose."""
    plugin = DEFAULTS.defaults
    assert (DEFAULTS.enabled, DEFAULTS.data_parallel) == (True, "local-rank-0")
    assert (DEFAULTS.allow_insecure_permissions, DEFAULTS.filter_by_role) == (False, True)
    assert (DEFAULTS.locations, DEFAULTS.plugins) == ((), {})
    assert (plugin.enabled, plugin.args, plugin.env) == (True, (), {})
    assert (plugin.restart, plugin.leftovers, plugin.stop_grace) == ("on-failure", "stop", 5)
    assert plugin.backoff == BackoffSettings(initial=0.5, max=30, reset_after=30)
    assert plugin.rate_limit == RateLimit(lines=1000, per=1, burst=10_000)
    assert (plugin.max_line_bytes, plugin.log_buffer_bytes, plugin.log) == (3072, 16_384, None)
    assert (plugin.nice, plugin.oom_score_adj) == (19, 1000)
    assert (plugin.memory_max, plugin.max_processes) == (None, None)


@pytest.mark.parametrize("extra_config", [None, {}, {"other": 1}, {"runtime_plugins": None}])
def test_nothing_said_is_the_defaults(extra_config: object) -> None:
    """No settings, no problems."""
    assert read_settings(extra_config, {}) == (DEFAULTS, [])


def test_keys_with_nothing_after_them_are_as_if_absent() -> None:
    """YAML gives null for a key whose values are commented out."""
    section = {row.key: None for row in SETTINGS if "." not in row.key}
    section["backoff"] = {"initial": None}
    section["plugins"] = {"a": None, "b": {"env": None, "args": None, "log": None}}
    settings, problems = read(section)
    assert problems == []
    assert settings == replaced(DEFAULTS, plugins={"a": DEFAULTS.defaults, "b": DEFAULTS.defaults})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ({"restart": "always"}, "restart", "always"),
        ({"backoff": {"max": 60}}, "backoff", BackoffSettings(0.5, 60, 30)),
        ({"backoff": {"initial": 60, "max": 60}}, "backoff", BackoffSettings(60, 60, 30)),
        ({"stop_grace": 0}, "stop_grace", 0),
        ({"max_line_bytes": 128}, "max_line_bytes", 128),
        ({"log_buffer_bytes": 1_048_576}, "log_buffer_bytes", 1_048_576),
        ({"rate_limit": False}, "rate_limit", None),
        ({"rate_limit": "off"}, "rate_limit", None),
        ({"rate_limit": {}}, "rate_limit", RateLimit(1000, 1, 10_000)),
        ({"rate_limit": {"lines": 5, "per": 0.5}}, "rate_limit", RateLimit(5, 0.5, 10_000)),
        ({"log": "stderr"}, "log", None),
        ({"log": "/var/log/p"}, "log", LogFiles("/var/log/p", 10_485_760, 5)),
        ({"log": "./logs"}, "log", LogFiles("./logs", 10_485_760, 5)),
        ({"log": "~/logs"}, "log", LogFiles("/home/me/logs", 10_485_760, 5)),
        ({"log": "$LOGS/p"}, "log", LogFiles("/logs/p", 10_485_760, 5)),
        ({"log": {"directory": "/l", "files": 2}}, "log", LogFiles("/l", 10_485_760, 2)),
        ({"leftovers": "keep"}, "leftovers", "keep"),
        ({"nice": 0}, "nice", 0),
        ({"oom_score_adj": -1000}, "oom_score_adj", -1000),
        ({"memory_max": "512MiB"}, "memory_max", 512 << 20),
        ({"memory_max": 1 << 30}, "memory_max", 1 << 30),
        ({"max_processes": 1}, "max_processes", 1),
        ({"no_new_privs": True}, "no_new_privs", True),
        ({"env_hide": ["*TOKEN*"]}, "env_hide", ("*TOKEN*",)),
    ],
)
def test_a_general_setting_holds_for_every_plugin(
    section: dict[str, object], field: str, value: object
) -> None:
    """What is set in general reaches plugins with settings of their own too."""
    settings, problems = read({**section, "plugins": {"p": {"args": ["x"]}}})
    assert problems == []
    assert settings.defaults == replaced(DEFAULTS.defaults, **{field: value})
    assert settings.plugins["p"] == replaced(settings.defaults, args=("x",))


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, (None, None, False)),
        ({"user": "nobody"}, ("nobody", None, True)),
        ({"user": 1000}, ("1000", None, True)),
        ({"group": "video"}, (None, "video", True)),
        ({"user": "nobody", "no_new_privs": False}, ("nobody", None, False)),
    ],
)
def test_no_new_privs_is_the_default_of_plugins_of_other_users(
    section: dict[str, object], expected: tuple[object, ...]
) -> None:
    """And can be chosen by itself."""
    settings, problems = read(section)
    assert problems == []
    plugin = settings.defaults
    assert (plugin.user, plugin.group, plugin.no_new_privs) == expected


@pytest.mark.parametrize(
    "section",
    [
        {"nice": 20},
        {"nice": -1},
        {"nice": "19"},
        {"nice": True},
        {"oom_score_adj": 1001},
        {"oom_score_adj": 1.5},
        {"memory_max": "1MiB"},
        {"memory_max": "512M"},
        {"memory_max": -1},
        {"memory_max": "lots"},
        {"max_processes": 0},
        {"max_processes": "10"},
        {"user": True},
        {"user": ""},
        {"user": -1},
        {"group": ["video"]},
        {"no_new_privs": "yes"},
        {"env_hide": "*TOKEN*"},
        {"env_hide": [1]},
        {"env_hide": {"A": "B"}},
    ],
)
def test_a_bad_limit_of_a_plugin_is_one_line(section: dict[str, object]) -> None:
    """With key, value, and what is accepted; the default stays in force."""
    (key,) = section
    problem = one_problem(section)
    assert problem.level == "error"
    assert f"{PREFIX}.{key}': found " in problem.text
    assert "accepted is" in problem.text


def test_numbers_of_seconds_are_floats_and_counts_are_ints() -> None:
    """Callers can rely on the types."""
    plugin = read({"stop_grace": 3, "backoff": {"max": 4}})[0].defaults
    assert [type(plugin.stop_grace), type(plugin.backoff.max)] == [float, float]
    assert type(plugin.log_buffer_bytes) is int


def test_one_plugin_goes_over_the_general_settings_key_by_key() -> None:
    """A partial mapping of a plugin keeps the other general values."""
    settings, problems = read(
        {
            "backoff": {"initial": 1, "max": 10},
            "rate_limit": "off",
            "log": {"directory": "/l", "files": 9},
            "plugins": {
                "p": {
                    "enabled": False,
                    "backoff": {"max": 20},
                    "rate_limit": {"lines": 7},
                    "log": {"max_bytes": 5000},
                    "env": {"A": "x", "PORT": 80},
                    "args": ["-n", 3],
                },
                "q": {"log": "stderr"},
            },
        }
    )
    assert problems == []
    plugin = settings.plugins["p"]
    assert plugin.enabled is False
    assert plugin.backoff == BackoffSettings(1, 20, 30)
    assert plugin.rate_limit == RateLimit(7, 1, 10_000)
    assert plugin.log == LogFiles("/l", 5000, 9)
    assert plugin.env == {"A": "x", "PORT": "80"}
    assert plugin.args == ("-n", "3")
    assert settings.plugins["q"].log is None
    assert settings.defaults.rate_limit is None


def test_enabled_in_general_is_not_a_plugins_enabled() -> None:
    """The general switch is about the whole adapter."""
    settings, _ = read({"enabled": False, "plugins": {"p": {}}})
    assert settings.enabled is False
    assert settings.plugins["p"].enabled is True


@pytest.mark.parametrize(
    ("keys", "names", "key"),
    [
        (["w"], ("w", "w.sh", "d/w.sh"), "w"),
        (["w.sh"], ("w", "w.sh", "d/w.sh"), "w.sh"),
        (["d/w.sh"], ("w", "w.sh", "d/w.sh"), "d/w.sh"),
        (["w", "w.sh", "d/w.sh"], ("w", "w.sh", "d/w.sh"), "d/w.sh"),
        (["w", "w.sh"], ("w", "w.py", "w.py"), "w"),
        (["other"], ("w", "w.sh"), None),
        ([], (), None),
    ],
)
def test_the_most_specific_name_finds_the_settings(
    keys: list[str], names: tuple[str, ...], key: str | None
) -> None:
    """Stem, file name and relative path are all names of a plugin."""
    settings, _ = read({"plugins": {name: {"args": [name]} for name in keys}})
    assert settings.key_for(*names) == key
    assert settings.for_plugin(*names).args == (() if key is None else (key,))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("section", "key", "found"),
    [
        ({"enabled": "yes"}, "enabled", "found 'yes'"),
        ({"enabled": 1}, "enabled", "found 1"),
        ({"data_parallel": "first"}, "data_parallel", "'local-rank-0' or 'all'"),
        ({"restart": "on_failure"}, "restart", "did you mean 'on-failure'?"),
        ({"restart": False}, "restart", "found false"),
        ({"restart": []}, "restart", "found a list"),
        ({"backoff": 5}, "backoff", "found 5"),
        ({"backoff": {"max": -1}}, "backoff.max", "found -1"),
        ({"backoff": {"max": NAN}}, "backoff.max", "found nan"),
        ({"backoff": {"max": INF}}, "backoff.max", "found inf"),
        ({"backoff": {"initial": 0}}, "backoff.initial", "from 0.01 to 86400"),
        ({"backoff": {"initial": "5"}}, "backoff.initial", "without quotes"),
        ({"backoff": {"initial": 31}}, "backoff.initial", "31 s is above 30 s"),
        ({"backoff": {"max": 0.1}}, "backoff.max", "0.5 s is above 0.1 s"),
        ({"stop_grace": True}, "stop_grace", "found true"),
        ({"stop_grace": "5 seconds"}, "stop_grace", "found '5 seconds'"),
        ({"stop_grace": 10**400}, "stop_grace", "found a very large number"),
        ({"max_line_bytes": 127}, "max_line_bytes", "from 128 to 65536"),
        ({"max_line_bytes": 3072.0}, "max_line_bytes", "found 3072.0"),
        ({"log_buffer_bytes": 10**9}, "log_buffer_bytes", "found 1000000000"),
        ({"rate_limit": True}, "rate_limit", "or 'off'"),
        ({"rate_limit": "of"}, "rate_limit", "found 'of'"),
        ({"rate_limit": 1000}, "rate_limit", "found 1000"),
        ({"rate_limit": {"lines": 0}}, "rate_limit.lines", "found 0"),
        ({"rate_limit": {"per": "1"}}, "rate_limit.per", "found '1'"),
        ({"log": "logger"}, "log", "found 'logger'"),
        ({"log": "stdeer"}, "log", "did you mean 'stderr'?"),
        ({"log": "$NOWHERE/x"}, "log", "variable 'NOWHERE' is not set"),
        ({"log": {"files": 3}}, "log", "no 'extra_config.runtime_plugins.log.directory'"),
        ({"log": {"directory": 3}}, "log.directory", "found 3"),
        (
            {"log": {"directory": "stder"}},
            "log.directory",
            "accepted is a directory (with a '/' in it);",
        ),
        (
            {"metrics": {"textfile": "stder"}},
            "metrics.textfile",
            "accepted is a directory (with a '/' in it);",
        ),
        ({"log": "a/\0"}, "log", "found"),
        ({"leftovers": "kill"}, "leftovers", "'stop' or 'keep'"),
        ({"filter_by_role": None, "allow_insecure_permissions": 0}, "allow_", "found 0"),
        ({"plugins": ["a"]}, "plugins", "found a list"),
        ({"plugins": {"a": "b"}}, "plugins.a", "found text"),
        ({"plugins": {3: {}}}, "plugins.3", "in quotes"),
        ({"plugins": {"a": {"enabled": "no"}}}, "plugins.a.enabled", "true stays in force"),
        ({"plugins": {"a": {"args": "-v -x"}}}, "plugins.a.args", "one item for each argument"),
        ({"plugins": {"a": {"args": ["x", 1.5]}}}, "plugins.a.args", "item 1: put it in quotes"),
        ({"plugins": {"a": {"args": [None]}}}, "plugins.a.args", "item 0: it is neither"),
        ({"plugins": {"a": {"args": ["\0"]}}}, "plugins.a.args", "NUL"),
        ({"plugins": {"a": {"args": ["\ud800"]}}}, "plugins.a.args", "cannot be encoded"),
        ({"plugins": {"a": {"env": ["A=1"]}}}, "plugins.a.env", "found a list"),
        ({"plugins": {"a": {"env": {"A": True}}}}, "plugins.a.env.A", "put it in quotes"),
        ({"plugins": {"a": {"env": {"A": None}}}}, "plugins.a.env.A", "found null"),
        ({"plugins": {"a": {"env": {"A=": "x"}}}}, "plugins.a.env.'A='", "without '=' and NUL"),
        ({"plugins": {"a": {"env": {"": "x"}}}}, "plugins.a.env", "a name is text"),
        ({"plugins": {"a": {"env": {1: "x"}}}}, "plugins.a.env.1", "a name is text"),
        (
            {"plugins": {"a": {"env": {"LMCACHE_RUNTIME_PLUGIN_RUN_ID": "x"}}}},
            "plugins.a.env.LMCACHE_RUNTIME_PLUGIN_RUN_ID",
            "tell the plugin who it is",
        ),
    ],
)
def test_a_wrong_value_is_named_in_full_and_changes_nothing(
    section: object, key: str, found: str
) -> None:
    """Key, finding and what is accepted are in one line."""
    problem = one_problem(section)
    assert problem.level == "error"
    assert f"'{PREFIX}.{key}" in problem.text
    assert found in problem.text
    assert "\n" not in problem.text


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (
            {"restrat": "never"},
            f"Unknown setting '{PREFIX}.restrat' has no effect: did you mean 'r",
        ),
        ({"max_lines_per_second": 5}, f"'{PREFIX}.max_lines_per_second'"),
        ({"colour": False}, "known are enabled, locations"),
        ({"backoff": {"maximum": 5}}, "known are initial, max, reset_after"),
        ({"backoff.max": 5}, f"'{PREFIX}.backoff.max'"),
        ({True: 5}, f"'{PREFIX}.true'"),
        ({"a\nb": 5}, r"'a\nb'"),
        ({"plugins": {"a": {"locations": []}}}, f"only as '{PREFIX}.locations'"),
        ({"plugins": {"a": {"plugins": {}}}}, "cannot be set per plugin"),
        ({"plugins": {"a": {"interval": 1}}}, "own settings belong below its key 'settings'"),
        ({"plugins": {"a": {"evn": {}}}}, "did you mean 'env'?"),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(section: object, text: str) -> None:
    """Mistyped and misplaced keys have no effect, and it is said."""
    problem = one_problem(section)
    assert problem.level == "warning"
    assert text in problem.text
    assert "\n" not in problem.text


@pytest.mark.parametrize("extra_config", ["text", 5, [1], True, {"runtime_plugins": []}])
def test_garbage_for_all_settings_is_one_problem(extra_config: object) -> None:
    """``extra_config`` itself may be of any type."""
    settings, problems = read_settings(extra_config, {})
    assert settings == DEFAULTS
    assert [problem.level for problem in problems] == ["error"]
    assert PREFIX in problems[0].text


def test_the_rest_stays_in_force() -> None:
    """Wrong values do not take right ones with them."""
    settings, problems = read(
        {
            "stop_grace": "long",
            "restart": "never",
            "backoff": {"initial": "x", "max": 7, "oops": 1},
            "plugins": {
                "p": {"env": {"GOOD": "1", "BAD": True}, "args": [[]], "log_buffer_bytes": 2048}
            },
        }
    )
    assert len(problems) == 5
    assert settings.defaults.restart == "never"
    assert settings.defaults.backoff == BackoffSettings(0.5, 7, 30)
    assert settings.plugins["p"].env == {"GOOD": "1"}
    assert settings.plugins["p"].log_buffer_bytes == 2048


def test_a_wrong_value_of_a_plugin_leaves_the_general_one() -> None:
    """Not the built-in default."""
    settings, problems = read({"stop_grace": 9, "plugins": {"p": {"stop_grace": -1}}})
    assert settings.plugins["p"].stop_grace == 9
    assert "9 stays in force" in problems[0].text


def test_values_of_variables_and_arguments_are_never_shown() -> None:
    """They are where secrets stand."""
    secret = "hunter2"
    for own in (
        {"env": {"A": [secret]}},
        {"env": {"LMCACHE_PLUGIN_X": secret}},
        {"env": {"A": f"{secret}\0"}},
        {"env": [f"A={secret}"]},
        {"env": f"A={secret}"},
        {"args": f"--password {secret}"},
        {"args": [f"--password={secret}", 1.5]},
    ):
        problem = one_problem({"plugins": {"p": own}})
        assert secret not in problem.text


def test_what_the_kernel_would_refuse_is_refused() -> None:
    """One argument, or one variable with its name, has at most 128 KiB."""
    longest = "x" * (EXEC_STRING_LIMIT - 1)
    assert read({"plugins": {"p": {"args": [longest]}}})[1] == []
    assert "131073 bytes" in one_problem({"plugins": {"p": {"args": [longest + "x"]}}}).text
    assert read({"plugins": {"p": {"env": {"A": longest[2:]}}}})[1] == []
    assert "131073 bytes" in one_problem({"plugins": {"p": {"env": {"A": longest[1:]}}}}).text


def test_a_long_value_is_shown_in_part() -> None:
    """Messages are bounded."""
    assert len(one_problem({"restart": "y" * 100_000}).text) < 300


def test_every_row_of_the_table_is_read() -> None:
    """Each setting's default is accepted where the setting stands, as are all its kinds."""
    for row in SETTINGS:
        if row.key == "plugins" or row.default is None:
            continue
        value: object = list(row.default) if isinstance(row.default, tuple) else row.default
        value = {} if row.key == "rate_limit" else value
        section: object = value
        for part in reversed(row.key.split(".")):
            section = {part: section}
        if row.key in ("log.max_bytes", "log.files"):
            section["log"]["directory"] = "/d"  # type: ignore[index]
        assert read(section)[1] == [], row.key
        if row.per_plugin:
            assert read({"plugins": {"x": section}})[1] == [], row.key
        elif not row.key.startswith(PLUGIN_KEY) and row.key != "enabled":
            assert len(read({"plugins": {"x": section}})[1]) == 1, row.key


KEYS = st.sampled_from(sorted({part for row in SETTINGS for part in row.key.split(".")}))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["off", "stderr", "never", "all", "/logs", "~", "$X/y", 5, 300, 4096, 0.5]),
    st.just(dt.date(2026, 1, 1)),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(KEYS | st.text(max_size=5) | st.integers() | st.none(), children)
    ),
    max_leaves=30,
)


@given(ANYTHING, st.dictionaries(KEYS, ANYTHING))
def test_any_value_is_read_and_every_problem_names_its_key(value: object, section: object) -> None:
    """Reading never raises, results are complete, messages are one line with the full key."""
    for extra_config in (value, {"runtime_plugins": value}, {"runtime_plugins": section}):
        settings, problems = read_settings(extra_config, {})
        for problem in problems:
            assert f"'{PREFIX}" in problem.text
            assert problem.text.isprintable()
            assert len(problem.text) < 1_000
        for plugin in (settings.defaults, *settings.plugins.values()):
            assert plugin.backoff.initial <= plugin.backoff.max
            assert 0 <= plugin.stop_grace <= 3600
            assert plugin.restart in ("never", "on-failure", "always")
            assert all(isinstance(text, str) for text in (*plugin.args, *plugin.env.values()))


@given(ANYTHING, st.sampled_from(["backoff", "log", "plugins", "enabled", "no_such_key"]))
def test_valid_settings_stay_in_force_beside_any_other(value: object, key: str) -> None:
    """Whatever stands at one key, another keeps its value."""
    settings, _ = read({key: value, "stop_grace": 7.5, "log_buffer_bytes": 2048})
    assert (settings.defaults.stop_grace, settings.defaults.log_buffer_bytes) == (7.5, 2048)


@pytest.mark.parametrize("own", [{}, {"interval": "5", "stop_grace": "x", "deep": {"a": [None]}}])
def test_a_plugins_own_section_is_not_looked_into(own: object) -> None:
    """It is the plugin's to read, and changes nothing that the supervisor does."""
    settings, problems = read({"plugins": {"a": {"settings": own, "stop_grace": 1}}})
    assert problems == []
    without, _ = read({"plugins": {"a": {"stop_grace": 1}}})
    assert settings == without


def test_a_plugins_own_section_is_a_mapping() -> None:
    """What stands there instead is said, and not shown: it may be a secret."""
    problem = one_problem({"plugins": {"a": {"settings": "secret"}}})
    assert problem.text == (
        f"Cannot use setting '{PREFIX}.plugins.a.settings': found text, "
        "accepted is a mapping; it has no effect"
    )
