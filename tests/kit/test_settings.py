# SPDX-License-Identifier: Apache-2.0
"""A plugin's own settings: what is wrong is said with its full key, and the rest goes on."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import Meta
from msgspec.structs import fields

from lmcache_plugin_adapter import kit

PREFIX = "extra_config.runtime_plugins.plugins.worker_x.settings"

Say = Callable[[], list[str]]


class Target(msgspec.Struct, kw_only=True):
    """A part with a required value and a rule of its own."""

    url: Annotated[str, Meta(pattern="^https?://", extra={"accepted": "an address with 'http://'"})]
    timeout: Annotated[float, Meta(gt=0, le=60)] = 10.0
    username: str | None = None
    password: str | None = None
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")


class Rule(msgspec.Struct, kw_only=True, rename={"for_": "for"}):
    """An item of a list."""

    name: Annotated[str, Meta(min_length=1)]
    for_: Annotated[float, Meta(ge=0)] = 0.0


class Settings(msgspec.Struct, kw_only=True):
    """Everything that occurs."""

    interval: Annotated[float, Meta(gt=0, description="Seconds.")] = 10.0
    keep: Annotated[float, Meta(ge=0.5, le=30 * 86400)] = 1234567.0
    count: Annotated[int, Meta(ge=1, le=9)] = 3
    enabled: bool = True
    mode: Literal["fast", "slow"] = "fast"
    name: str = "lmcache"
    target: Target | None = None
    rules: Annotated[list[Rule], Meta(max_length=2)] = []
    labels: dict[Annotated[str, Meta(pattern="^[a-z]+$")], str] = {}
    words: list[Annotated[str, Meta(min_length=1)]] = []
    seed: Annotated[str, Meta(extra={"secret": True})] = ""
    anything: Any = None


class Quantities(msgspec.Struct):
    """Times and sizes."""

    every: Annotated[kit.Duration, Meta(gt=0, le=3600)] = 10.0
    pause: kit.Duration | None = None
    most: kit.Size = 1024
    each: dict[str, kit.Duration] = {}


class Needy(msgspec.Struct, kw_only=True):
    """With required values, one of them a part."""

    target: Target
    size: int
    more: int = 1


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return what was printed since the last time, line by line."""

    def printed() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return printed


def read(settings: object, kind: type[Any] = Settings) -> Any:
    """Read a section."""
    plugins = {"worker_x": {"settings": settings}}
    config = {"extra_config": {"runtime_plugins": {"plugins": plugins}}}
    ctx = kit.Context(role="WORKER", worker_id=0, worker_count=1, name="worker_x", config=config)
    return ctx.settings(kind)


@pytest.mark.parametrize("section", [None, {}, {"interval": None, "target": None, "rules": None}])
def test_nothing_said_is_the_defaults(section: object, say: Say) -> None:
    """A key with nothing after it is as if absent."""
    assert read(section) == Settings()
    assert say() == []


def test_everything_said_is_taken(say: Say) -> None:
    """Whole numbers do for numbers."""
    section = {
        "interval": 5,
        "count": 9,
        "enabled": False,
        "mode": "slow",
        "name": "x",
        "target": {"url": "http://a", "username": "u", "password": "p", "headers": {"A": "b"}},
        "rules": [{"name": "r", "for": 3}],
        "labels": {"a": "b"},
        "words": [],
        "seed": "s",
        "anything": {"any": [1]},
    }
    settings = read(section)
    assert say() == []
    assert settings == Settings(
        interval=5.0,
        count=9,
        enabled=False,
        mode="slow",
        name="x",
        target=Target(url="http://a", username="u", password="p", headers={"A": "b"}),
        rules=[Rule(name="r", for_=3.0)],
        labels={"a": "b"},
        words=[],
        seed="s",
        anything={"any": [1]},
    )


WRONG = [
    (
        {"interval": "5"},
        (
            "interval': found '5', accepted is a number above 0 (write it without quotes); "
            "10 stays in force"
        ),
    ),
    ({"interval": 0}, "interval': found 0, accepted is a number above 0; 10 stays in force"),
    ({"interval": True}, "interval': found true, accepted is a number above 0; 10 stays in force"),
    (
        {"keep": 0},
        "keep': found 0, accepted is a number from 0.5 to 2592000; 1234567 stays in force",
    ),
    ({"count": 10}, "count': found 10, accepted is a whole number from 1 to 9; 3 stays in force"),
    ({"count": 1.5}, "count': found 1.5, accepted is a whole number from 1 to 9; 3 stays in force"),
    (
        {"enabled": "false"},
        (
            "enabled': found 'false', accepted is 'true' or 'false' (write it without quotes); "
            "true stays in force"
        ),
    ),
    (
        {"mode": "fats"},
        (
            "mode': found 'fats', accepted is 'fast' or 'slow' (did you mean 'fast'?); "
            "'fast' stays in force"
        ),
    ),
    (
        {"name": 5},
        "name': found 5, accepted is text (put it in quotes); 'lmcache' stays in force",
    ),
    ({"name": ["a"]}, "name': found a list, accepted is text; 'lmcache' stays in force"),
    ({"target": "http://a"}, "target': found text, accepted is a mapping; it has no effect"),
    (
        {"rules": {}},
        "rules': found a mapping, accepted is a list, each a mapping; it has no effect",
    ),
    ({"labels": []}, "labels': found a list, accepted is a mapping; it has no effect"),
    (
        {"words": "a"},
        "words': found 'a', accepted is a list, each text that is not empty; it has no effect",
    ),
    (
        {"rules": [{"name": "a"}] * 3},
        "rules': found 3 that can be used, accepted are 0 to 2; it has no effect",
    ),
]


@pytest.mark.parametrize(("section", "line"), WRONG, ids=[line[:20] for _, line in WRONG])
def test_a_wrong_value_is_one_line_and_the_default(
    section: dict[str, object], line: str, say: Say
) -> None:
    """The other values are taken."""
    settings = read({"anything": 1, **section})
    assert settings == Settings(anything=1)
    assert say() == [f"<3>Cannot use setting '{PREFIX}.{line}"]


def test_an_unknown_key_is_named_with_a_suggestion(say: Say) -> None:
    """Or with all that there are."""
    assert read({"intervall": 1, "zzz": 2, 3: 4}) == Settings()
    first, second, third = say()
    assert first == (
        f"<4>Unknown setting '{PREFIX}.intervall' has no effect: did you mean 'interval'?"
    )
    assert second.startswith(f"<4>Unknown setting '{PREFIX}.zzz' has no effect: known are interval")
    assert third.startswith(f"<4>Unknown setting '{PREFIX}.3' has no effect: known are")


def wrong(key: str, what: str) -> str:
    """Return the line that says what is wrong with a value."""
    return f"<3>Cannot use setting '{PREFIX}.{key}': {what}"


def test_durations_and_sizes_have_units(say: Say) -> None:
    """As numbers or as texts; whatever is wrong leaves the default in force."""

    def read_quantities(**section: object) -> Quantities:
        return read(section, Quantities)

    good = read_quantities(every="2m", pause="1.5s", most="64MiB", each={"a": "1h", "b": 5})
    assert say() == []
    assert good == Quantities(120.0, 1.5, 67_108_864, {"a": 3600.0, "b": 5.0})
    duration = "a duration above 0 and at most 3600 seconds: a number, or text such as '30s', '5m'"
    size = "a size: a number, or text such as '64KiB', '10MiB'"
    for value, found, hint in (
        ("5", "'5'", " (write it without quotes, or with its unit)"),
        ("0s", "'0s'", ""),
        ("2h", "'2h'", ""),
        ("5x", "'5x'", " (units are ms, s, m, h and d)"),
        (math.nan, "nan", ""),
        (-1, "-1", ""),
    ):
        assert read_quantities(every=value) == Quantities()
        assert say() == [
            wrong("every", f"found {found}, accepted is {duration}{hint}; 10 stays in force")
        ]
    for value in (-1, "1.5B", "x"):
        assert read_quantities(most=value) == Quantities()
        (line,) = say()
        assert f"accepted is {size}" in line
        assert "1024 stays in force" in line
    assert read_quantities(pause=math.inf, each={"a": "-1s"}) == Quantities()
    assert ["has no effect" in line for line in say()] == [True, True]


def test_what_is_wrong_in_a_part_leaves_the_rest_of_it(say: Say) -> None:
    """With the whole key."""
    target = {"url": "http://a", "timeout": "x", "headers": {"A": 1, "B": "2"}, "tiemout": 1}
    settings = read({"target": target, "rules": [{"name": "r", "fro": 1}, {"name": "s"}]})
    assert settings.target == Target(url="http://a", headers={"B": "2"})
    assert settings.rules == [Rule(name="r"), Rule(name="s")]
    number = "a number above 0 and at most 60"
    unknown = f"<4>Unknown setting '{PREFIX}."
    assert say() == [
        f"{unknown}target.tiemout' has no effect: did you mean 'timeout'?",
        wrong("target.timeout", f"found 'x', accepted is {number}; 10 stays in force"),
        wrong("target.headers.A", "found a whole number, accepted is text; it has no effect"),
        f"{unknown}rules[0].fro' has no effect: did you mean 'for'?",
    ]


def test_an_item_that_cannot_be_used_is_left_out(say: Say) -> None:
    """The others stay, of lists and of mappings."""
    settings = read(
        {
            "rules": [{"for": 1}, 3, {"name": "good", "for": -1}],
            "labels": {"BAD": "x", "good": "y", "bad": 1},
            "words": ["", "b"],
        }
    )
    assert settings == Settings(rules=[Rule(name="good")], labels={"good": "y"}, words=["b"])
    no = "it has no effect"
    filled = "text that is not empty"
    name = "accepted as its name is text that matches ^[a-z]+$"
    missing = f"<3>Missing setting '{PREFIX}.rules[0].name'"
    assert say() == [
        f"{missing}: accepted is {filled}; 'rules[0]' has no effect",
        wrong("rules[1]", f"found 3, accepted is a mapping; {no}"),
        wrong("rules[2].for", "found -1, accepted is a number of at least 0; 0 stays in force"),
        wrong("labels.BAD", f"{name}; {no}"),
        wrong("labels.bad", f"found 1, accepted is text (put it in quotes); {no}"),
        wrong("words[0]", f"found '', accepted is {filled}; {no}"),
    ]


def test_a_part_that_contradicts_itself_is_left_out(say: Say) -> None:
    """In the words of its class."""
    assert read({"target": {"url": "http://a", "password": "p"}, "count": 4}) == Settings(count=4)
    assert say() == [wrong("target", "password needs username; it has no effect")]


def test_words_of_ones_own_say_what_is_accepted(say: Say) -> None:
    """Instead of a pattern."""
    assert read({"target": {"url": "ftp://a"}}) == Settings()
    accepted = "an address with 'http://'"
    assert say() == [
        wrong("target.url", f"found 'ftp://a', accepted is {accepted}; 'target' has no effect")
    ]


@pytest.mark.parametrize(
    "section",
    [
        {"target": {"url": "http://a", "password": 123456}},
        {"target": {"url": "http://a", "headers": {"Authorization": 123456}}},
        {"target": {"url": "ftp://user:123456@host"}},
        {"target": {"url": "host/path?key=123456"}},
        {"target": "http://user:123456@host"},
        {"target": "hooks/123456"},
        {"rules": "hooks/123456"},
        {"rules": ["hooks/123456"]},
        {"seed": 123456},
        {"password": 123456},
    ],
)
def test_secrets_are_not_shown(section: dict[str, object], say: Say) -> None:
    """By their names, by the type's own word, and in addresses."""
    read(section)
    lines = say()
    assert lines
    assert "123456" not in "".join(lines)


def test_required_values_must_be_there(say: Say) -> None:
    """All of what is wrong is said before the plugin gives up."""
    with pytest.raises(kit.SettingsError, match=r"cannot work with the settings in"):
        read({"target": {"url": 3}, "more": "x"}, Needy)
    without = "the plugin cannot work without it"
    assert say() == [
        wrong("target.url", f"found 3, accepted is an address with 'http://'; {without}"),
        f"<3>Missing setting '{PREFIX}.size': accepted is a whole number; {without}",
        wrong("more", "found 'x', accepted is a whole number; 1 stays in force"),
    ]
    good = read({"target": {"url": "http://a"}, "size": 1}, Needy)
    assert good == Needy(target=Target(url="http://a"), size=1)


NAMES = [field.encode_name for kind in (Settings, Target, Rule) for field in fields(kind)]
KEYS = st.sampled_from(NAMES) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@hypothesis_settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES)
def test_whatever_is_said_there_are_settings(section: Any) -> None:
    """Never an exception, and each value has its type."""
    settings = read(section)
    assert msgspec.convert(msgspec.to_builtins(settings), Settings) == settings


PLUGIN = """\
import msgspec
from lmcache_plugin_adapter import kit

class Settings(msgspec.Struct, kw_only=True):
    url: str
    interval: float = 1.0

def main(ctx, stop):
    settings = ctx.settings(Settings)
    kit.info(f"working with {settings.url} every {settings.interval:g} s")
    stop.wait(60)

raise SystemExit(kit.run(main))
"""


def test_a_plugin_without_a_required_value_is_not_started_again(
    run_plugin: Any, tmp_path: Path
) -> None:
    """It says which, and ends with 125; with it, it works."""
    path = tmp_path / "worker_needy.py"
    path.write_text(PLUGIN)
    plugin = run_plugin(path, role="worker", restart="always")
    assert plugin.wait_exit() == 125
    section = "extra_config.runtime_plugins.plugins.worker_needy.settings"
    missing = f"Missing setting '{section}.url': accepted is text"
    assert plugin.lines == [
        ("error", f"{missing}; the plugin cannot work without it"),
        ("error", f"Cannot work with the settings in '{section}': see above"),
    ]
    assert any("not" in report.text and "125" in report.text for report in plugin.reports)
    good = run_plugin(path, role="worker", settings={"url": "http://a", "interval": "2"})
    good.wait_for("working with http://a every 1 s")
    assert [line.level for line in good.lines] == ["error", "info"]
    assert good.stop() == 0


def test_without_msgspec_it_says_what_to_install(tmp_path: Path) -> None:
    """As in an environment with the package alone."""
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from lmcache_plugin_adapter import kit\n"
        "sys.exit(kit.run(lambda ctx, stop: ctx.settings(object) and 0))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"LMCACHE_RUNTIME_PLUGIN_ROLE": "WORKER"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 125
    assert result.stdout.count("\n") == 1
    assert "<3>Cannot read settings: msgspec is not installed" in result.stdout
    assert "pip install 'lmcache-plugin-adapter[kit]'" in result.stdout
