# SPDX-License-Identifier: Apache-2.0
"""Reading ``lmcache.yaml``: as LMCache does, and with a place for every mistake."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig, load_lmcache_yaml
from lmcache_plugin_adapter.cli.yaml_reader import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LOCATIONS = "runtime_plugin_locations"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is written."""
    return tmp_path / "lmcache.yaml"


def load(file: Path, text: str | bytes, **environ: str) -> StandInConfig:
    """Read ``text`` from a file, under these variables and no others."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_lmcache_yaml(str(file), environ)


def test_the_whole_file_is_handed_on(file: Path) -> None:
    """Plugins look at LMCache's own keys too."""
    text = "chunk_size: 256\nruntime_plugin_locations: [/a]\nextra_config: {k: {n: [1, 2.5, true]}}"
    config = load(file, text)
    assert config.source == str(file)
    assert config.problems == ()
    assert config.runtime_plugin_locations == ["/a"]
    assert config.extra_config == {"k": {"n": [1, 2.5, True]}}
    assert json.loads(config.to_json()) == {
        LOCATIONS: ["/a"],
        "extra_config": {"k": {"n": [1, 2.5, True]}},
        "chunk_size": 256,
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "null", "[]"])
def test_an_empty_file_is_a_configuration(file: Path, text: str) -> None:
    """LMCache starts with it."""
    config = load(file, text)
    assert (config.runtime_plugin_locations, config.extra_config) == (None, None)
    assert config.problems == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("runtime_plugin_locations: /a", ["/a"]),
        ("runtime_plugin_locations: '/a,/b'", ["/a,/b"]),
        ("runtime_plugin_locations: ''", []),
        ("runtime_plugin_locations:", None),
        ("runtime_plugin_locations: []", []),
        ("runtime_plugin_locations: {a: b}", [{"a": "b"}]),
        ("runtime_plugin_locations: 5", [5]),
        ("plugin_locations: /a", ["/a"]),
        ("plugin_locations: /a\nruntime_plugin_locations: /b", ["/b"]),
        ("runtime_plugin_locations: /b\nplugin_locations: /a", ["/a"]),
    ],
)
def test_locations_are_converted_as_lmcache_does(file: Path, text: str, value: object) -> None:
    """A plain string becomes a list; of the two names, the later one wins."""
    config = load(file, text)
    assert config.runtime_plugin_locations == value
    assert "plugin_locations" not in json.loads(config.to_json())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("extra_config: {}", {}),
        ("extra_config:", None),
        ("extra_config: ''", None),
        ("extra_config: '{\"a\": 1}'", {"a": 1}),
        ("extra_config: '5'", 5),
    ],
)
def test_extra_config_is_converted_as_lmcache_does(file: Path, text: str, value: object) -> None:
    """Text is JSON."""
    assert load(file, text).extra_config == value


@pytest.mark.parametrize(
    ("environ", "locations", "extra_config"),
    [
        ({}, ["/f"], {"f": 1}),
        ({"LMCACHE_RUNTIME_PLUGIN_LOCATIONS": "/e"}, ["/e"], {"f": 1}),
        ({"LMCACHE_RUNTIME_PLUGIN_LOCATIONS": "/e,/g"}, ["/e,/g"], {"f": 1}),
        ({"LMCACHE_RUNTIME_PLUGIN_LOCATIONS": "'/e'"}, ["/e"], {"f": 1}),
        ({"LMCACHE_RUNTIME_PLUGIN_LOCATIONS": ""}, [], {"f": 1}),
        ({"LMCACHE_PLUGIN_LOCATIONS": "/o"}, ["/o"], {"f": 1}),
        (
            {"LMCACHE_PLUGIN_LOCATIONS": "/o", "LMCACHE_RUNTIME_PLUGIN_LOCATIONS": "/e"},
            ["/o"],
            {"f": 1},
        ),
        ({"LMCACHE_EXTRA_CONFIG": '{"e": 2}'}, ["/f"], {"e": 2}),
        ({"LMCACHE_EXTRA_CONFIG": "'{\"e\": 2}'"}, ["/f"], {"e": 2}),
        ({"LMCACHE_EXTRA_CONFIG": ""}, ["/f"], None),
    ],
)
def test_the_environment_goes_over_the_file(
    file: Path, environ: dict[str, str], locations: object, extra_config: object
) -> None:
    """As LMCache has it: replaced, not merged; quotes taken off."""
    config = load(file, "runtime_plugin_locations: [/f]\nextra_config: {f: 1}", **environ)
    assert config.runtime_plugin_locations == locations
    assert config.extra_config == extra_config
    assert config.problems == ()


@pytest.mark.parametrize(
    ("text", "variable", "value"),
    [
        ("chunk_size: 256", "128", 128),
        ("chunk_size: 256", "many", 256),
        ("chunk_size: 5", "2.5", 2.5),
        ("chunk_size: 0.5", "3", 3.0),
        ("chunk_size: true", "False", False),
        ("chunk_size: false", "1", True),
        ("chunk_size: a", "'b'", "b"),
        ("chunk_size: [1]", "2", [1]),
    ],
)
def test_variables_of_other_keys_take_the_type_of_the_file(
    file: Path, text: str, variable: str, value: object
) -> None:
    """Which is the type that LMCache has for the key."""
    config = load(file, text, LMCACHE_CHUNK_SIZE=variable)
    assert config.values["chunk_size"] == value
    assert type(config.values["chunk_size"]) is type(value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: b: c", ":1:5: cannot read as YAML: mapping values are not allowed here"),
        ("a: 1\n b: 2", ":2:3: cannot read as YAML"),
        ("a: [1,\n b", ":2:3: cannot read as YAML: while parsing a flow sequence that begins in"),
        ("a:\n\t- x", ":2:1: cannot read as YAML: .*; indent with spaces"),
        ("a: 'x\nb: y", ":2:5: .* quoted scalar that begins in line 1: found unexpected end"),
        ("a: *x", ":1:4: .* undefined alias 'x'"),
        ("a: {{ x }}", ":1:5: .* unhashable key"),
        ("a: !!python/object:os.system x", ":1:4: .* could not determine a constructor"),
        ("x: 1\na: 2026-13-01", ":2:4: .* value cannot be read as timestamp"),
        ("x: 1\na: !!int ''", ":2:4: .* value cannot be read as int"),
        ("a: !!timestamp x", ":1:4: .* value cannot be read as timestamp"),
        ("a: 1\n---\nb: 2", ":2:1: .* expected a single document"),
        (b"a: 1\n\xc3\xa9: \xff", ":2:4: byte 0xff is not UTF-8 text"),
        ("a: 1\nb: \x01", r":2:4: .*character '\\x01' is not allowed"),
        ("[" * 5000, ": cannot read as YAML: nested too deeply"),
        ("a: &a [*a]", ": nested too deeply, or a value contains itself"),
        ("a: &a {b: *a}", ": nested too deeply, or a value contains itself"),
        ("- /a", ":1:1: the file is a list, accepted is a mapping"),
        ("# x\n\nhello", ":3:1: the file is text, accepted is a mapping"),
        ("extra_config: [1]", ": 'extra_config' is a list, accepted is a mapping"),
        ("extra_config: true", ": 'extra_config' is a boolean"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(
    file: Path, text: str | bytes, error: str
) -> None:
    """FILE:LINE:COLUMN, as editors understand it, on one line."""
    with pytest.raises(ConfigError, match=f"^{file}{error}") as caught:
        load(file, text)
    assert str(caught.value).isprintable()


def test_aliases_that_multiply_are_refused(file: Path) -> None:
    """A few lines can stand for billions of values."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="has more than 1,000,000 values"):
        load(file, "\n".join(lines))


def test_a_missing_file_and_a_directory_are_said(tmp_path: Path) -> None:
    """With the name as given."""
    with pytest.raises(ConfigError, match=r"/no\.yaml: cannot read the file: No such file"):
        load_lmcache_yaml(str(tmp_path / "no.yaml"), {})
    with pytest.raises(ConfigError, match="cannot read the file: Is a directory"):
        load_lmcache_yaml(str(tmp_path), {})
    with pytest.raises(ConfigError, match="cannot read the file"):
        load_lmcache_yaml("a\0b", {})


@pytest.mark.parametrize(
    ("text", "level", "problem"),
    [
        ("a: 1\na: 2", "warning", ":2:1: key 'a' overrides the one in line 1"),
        ("extra_config:\n  k: 1\n  k: 2", "warning", ":3:3: key 'k' overrides the one in line 2"),
        ("plugin_locations: /a", "warning", ":1:1: key 'plugin_locations' is the older name"),
        ("runtime_plugins: {}", "warning", ":1:1: .* it belongs below 'extra_config'"),
        ("runtime_plugins_locations: /a", "warning", ":1:1: .*did you mean 'runtime_plugin_loc"),
        ("extra_confg: {}", "warning", ":1:1: .*did you mean 'extra_config'"),
        ("extra_config: {d: 2026-01-01}", "warning", ": 'extra_config.d' is a value of type date"),
        (
            "extra_config: {d: [!!set {a}]}",
            "warning",
            r": 'extra_config.d\[0\]' is a value of type",
        ),
        (
            "extra_config: {d: !!binary aGk=}",
            "warning",
            ": 'extra_config.d' is a value of type byt",
        ),
    ],
)
def test_what_is_probably_not_meant_is_said(
    file: Path, text: str, level: str, problem: str
) -> None:
    """LMCache starts, but not as its user thinks."""
    config = load(file, text)
    assert [found.level for found in config.problems] == [level]
    assert re.match(f"{file}{problem}", config.problems[0].text)
    json.loads(config.to_json())


def test_a_merged_mapping_may_override(file: Path) -> None:
    """That is what merge keys are for."""
    text = "x: &x {a: 1, b: 2}\ny: &y {<<: *x, a: 3}\nz: {<<: *y, a: 4, b: 5}"
    config = load(file, text)
    assert config.problems == ()
    assert config.values["z"] == {"a": 4, "b": 5}


@pytest.mark.parametrize("text", ["{bad", "[" * 100_000])
def test_extra_config_that_is_no_json_is_said_without_its_value(file: Path, text: str) -> None:
    """LMCache drops the file's, and keeps the file's over the variable's."""
    config = load(file, f"extra_config: '{text}'")
    assert config.extra_config is None
    assert [problem.level for problem in config.problems] == ["error"]
    config = load(file, "extra_config: {a: 1}", LMCACHE_EXTRA_CONFIG=text)
    assert config.extra_config == {"a": 1}
    assert config.problems[0].text.startswith("Cannot use LMCACHE_EXTRA_CONFIG: it is not JSON")


def test_a_byte_order_mark_and_carriage_returns_are_fine(file: Path) -> None:
    """Editors elsewhere write them."""
    config = load(file, b"\xef\xbb\xbfchunk_size: 1\r\nruntime_plugin_locations: [/a]\r\n")
    assert config.values == {LOCATIONS: ["/a"], "extra_config": None, "chunk_size": 1}


def test_keys_that_are_no_text_become_json_keys(file: Path) -> None:
    """As they do in LMCache's JSON."""
    text = "extra_config: {2: a, true: b, null: c, 1.5: d}"
    assert load(file, text).extra_config == {"2": "a", "true": "b", "null": "c", "1.5": "d"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text() | st.text(alphabet="{}[]:,&*!-'\"# \n\tab1"), st.binary(max_size=50))
def test_any_text_is_a_configuration_or_one_clear_error(file: Path, text: str, data: bytes) -> None:
    """No other exception comes out."""
    for content in (text.encode("utf-8", "surrogatepass"), data):
        said = ""
        try:
            assert isinstance(json.loads(load(file, content).to_json()), dict)
        except ConfigError as error:
            said = str(error)
        assert said == "" or (said.startswith(f"{file}:") and said.isprintable())
