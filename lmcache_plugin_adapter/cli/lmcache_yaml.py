"""Read ``lmcache.yaml`` as LMCache does, without LMCache and with exact places in the errors.

For the command line only: it needs PyYAML, which engine and supervisor never
import. What LMCache does stands in ``LMCacheEngineConfig.from_file`` and
``update_config_from_env`` (its ``config_base.py`` and ``config.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from lmcache_plugin_adapter.configuration.locations import KEY, OLDER_KEY, VARIABLES, unquoted
from lmcache_plugin_adapter.messages.describe import describe_type, show
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXTRA_CONFIG = "extra_config"
VARIABLE_PREFIX = "LMCACHE_"
EXTRA_CONFIG_VARIABLE = f"{VARIABLE_PREFIX}EXTRA_CONFIG"

_MOST_VALUES = 1_000_000
_MERGE = "tag:yaml.org,2002:merge"


class ConfigError(Exception):
    """The configuration cannot be used; the text begins with ``FILE:``, and with
    ``FILE:LINE:COLUMN:`` where there is a place to point at.
    """  # noqa: D205


@dataclass(frozen=True)
class StandInConfig:
    """What the launcher needs of LMCache's configuration.

    Attributes:
        source: The file it came from, as its user named it.
        values: All its keys, as JSON has them, the environment on top.
        problems: What is probably not meant as LMCache takes it.
    """

    source: str
    values: Mapping[str, Any]
    problems: tuple[Problem, ...]

    @property
    def runtime_plugin_locations(self) -> Any:
        """LMCache's value: a list of anything, or None."""
        return self.values[KEY]

    @property
    def extra_config(self) -> Any:
        """LMCache's value: a mapping (anything that JSON has, from a variable), or None."""
        return self.values[EXTRA_CONFIG]

    def to_json(self) -> str:
        """Return the whole configuration as JSON, laid out as LMCache does."""
        return json.dumps(self.values, indent=2)


def load_lmcache_yaml(path: str, environ: Mapping[str, str]) -> StandInConfig:
    """Read the file at ``path``, with LMCache's environment variables on top.

    Of the variables, those for locations and ``extra_config`` are known, and
    those for plain values that the file has too.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or is one that
            LMCache does not start with.
    """
    problems: list[Problem] = []
    found = _load(path, _read(path), problems)
    try:
        plain = dict(_Plain(path, problems).items(found, ""))
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or a value contains itself") from None
    values: dict[str, Any] = {KEY: None, EXTRA_CONFIG: None}
    for key, value in plain.items():  # of today's and the older key, the last one wins
        values[KEY if key == OLDER_KEY else key] = value
    values[KEY] = _as_locations(values[KEY])
    values[EXTRA_CONFIG] = _as_extra_config(values[EXTRA_CONFIG], path, problems)
    _put_environment_on_top(values, environ, problems)
    return StandInConfig(path, values, tuple(problems))


def load_yaml(path: str) -> tuple[dict[str, Any], list[Problem]]:
    """Read any YAML or JSON file that holds a mapping, with the same exact places in errors.

    Raises:
        ConfigError: The file cannot be read or is not YAML.
    """
    problems: list[Problem] = []
    found = _load(path, _read(path), problems, keys_of_lmcache=False)
    try:
        return dict(_Plain(path, problems).items(found, "")), problems
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or a value contains itself") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a place for every error and a note of doubtful keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.doubtful: list[tuple[Any, str]] = []

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Note equal keys: PyYAML takes the last of them without a word."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                before = first.setdefault((key.tag, key.value), key)
                if before is not key:
                    line = before.start_mark.line + 1
                    text = f"key {show(key.value)} overrides the one in line {line}"
                    self.doubtful.append((key.start_mark, text))
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a value; give errors of Python's own types their place."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            # Such as the date 2026-13-45, or !!int with no number after it.
            kind = node.tag.rpartition(":")[2]
            text = f"value cannot be read as {kind} ({error})"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error

    def note_lost_keys(self, root: yaml.MappingNode) -> None:
        """Note keys at top level that look as if they were meant for plugins."""
        known = (KEY, OLDER_KEY, EXTRA_CONFIG)
        for key, _ in root.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str) or name in (KEY, EXTRA_CONFIG):
                continue
            hint = did_you_mean(name, known)
            if name == "runtime_plugins":
                text = f"key {name!r} has no effect here: it belongs below {EXTRA_CONFIG!r}"
            elif name == OLDER_KEY:
                text = f"key {name!r} is the older name of {KEY!r}"
            elif hint:
                text = f"key {name!r} has no effect: {hint}"
            else:
                continue
            self.doubtful.append((key.start_mark, text))


class _Plain:
    """Turns what YAML can say into what JSON can say; notes what JSON cannot."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self._path = path
        self._problems = problems
        self._count = 0

    def items(self, found: dict[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
        """Yield the items of ``found``, whose full key is ``where``."""
        for key, value in found.items():
            simple = key is None or isinstance(key, (bool, int, float))
            name = json.dumps(key) if simple else str(key)
            yield name, self._value(value, f"{where}.{name}" if where else name)

    def _value(self, value: object, where: str) -> Any:
        self._count += 1  # a few aliases of aliases make billions
        if self._count > _MOST_VALUES:
            raise ConfigError(f"{self._path}: has more than {_MOST_VALUES:,} values")
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, dict):
            return dict(self.items(value, where))
        if isinstance(value, (list, tuple)):
            return [self._value(item, f"{where}[{at}]") for at, item in enumerate(value)]
        self._problems.append(
            Problem(
                "warning",
                f"{self._path}: {show(where)} is {describe_type(value)}, which JSON does not have: "
                "LMCache cannot hand on its configuration with it; put it in quotes",
            )
        )
        if isinstance(value, set):
            return sorted(map(str, value))
        return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: cannot read the file: {reason}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[: error.start].rpartition(b"\n")[2].decode()) + 1
        byte = data[error.start]
        what = f"byte 0x{byte:02x} is not UTF-8 text"
        raise ConfigError(f"{path}:{line}:{column}: {what}") from error


def _load(
    path: str, text: str, problems: list[Problem], *, keys_of_lmcache: bool = True
) -> dict[Any, Any]:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        found = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{_place(mark)}" if mark else path
        begin = error.context_mark
        context = error.context
        if context and begin and mark and begin.line != mark.line:
            context = f"{context} that begins in line {begin.line + 1}:"
        what = " ".join(filter(None, (context, error.problem)))
        hint = "; indent with spaces" if r"'\t'" in what else ""
        raise ConfigError(f"{place}: cannot read as YAML: {what}{hint}") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        place = f"{len(before)}:{len(before[-1]) + 1}"
        what = f"character {text[error.position]!r} is not allowed"
        raise ConfigError(f"{path}:{place}: cannot read as YAML: {what}") from error
    except RecursionError:
        raise ConfigError(f"{path}: cannot read as YAML: nested too deeply") from None
    if root is None or not found:  # LMCache takes 0 and an empty list for an empty file too
        return {}
    if not isinstance(root, yaml.MappingNode) or not isinstance(found, dict):
        what = f"is {describe_type(found)}, accepted is a mapping (key: value)"
        raise ConfigError(f"{path}:{_place(root.start_mark)}: the file {what}")
    if keys_of_lmcache:
        loader.note_lost_keys(root)
    problems.extend(
        Problem("warning", f"{path}:{_place(mark)}: {text}")
        for mark, text in sorted(loader.doubtful, key=lambda doubt: doubt[0].index)
    )
    return found


def _place(mark: Any) -> str:
    return f"{mark.line + 1}:{mark.column + 1}"


def _as_locations(value: Any) -> Any:
    """Convert as LMCache does: anything that is no list becomes the only item of one."""
    if value is None or isinstance(value, list):
        return value
    return [value] if value else []


def _as_extra_config(value: Any, path: str, problems: list[Problem]) -> Any:
    """Convert as LMCache does: text is JSON."""
    if isinstance(value, dict):
        return value
    if not value:
        return None
    if not isinstance(value, str):
        what = f"is {describe_type(value)}, accepted is a mapping: LMCache does not start with it"
        raise ConfigError(f"{path}: {EXTRA_CONFIG!r} {what}")
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        text = f"Cannot use {EXTRA_CONFIG!r} of {path!r}: it is text, but not JSON: {error}"
        problems.append(Problem("error", text))
        return None


def _put_environment_on_top(
    values: dict[str, Any], environ: Mapping[str, str], problems: list[Problem]
) -> None:
    for key, value in list(values.items()):
        text = environ.get(VARIABLE_PREFIX + key.upper())
        if text is not None and key not in (KEY, EXTRA_CONFIG):
            values[key] = _like(value, unquoted(text))
    for name in VARIABLES:
        if name in environ:
            values[KEY] = _as_locations(unquoted(environ[name]))
    if EXTRA_CONFIG_VARIABLE in environ:
        text = unquoted(environ[EXTRA_CONFIG_VARIABLE])
        try:
            values[EXTRA_CONFIG] = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            what = f"it is not JSON: {error}; the file's {EXTRA_CONFIG!r} stays in force"
            problems.append(Problem("error", f"Cannot use {EXTRA_CONFIG_VARIABLE}: {what}"))


def _like(value: Any, text: str) -> Any:
    """Return ``text`` in the type of the file's value, which is LMCache's for the key."""
    if isinstance(value, bool):
        return text.strip().lower() in ("true", "1")
    if isinstance(value, (int, float)):
        try:
            number = float(text)
            return int(text) if isinstance(value, int) and number.is_integer() else number
        except ValueError:
            return value  # LMCache keeps it too
    return value if isinstance(value, (dict, list)) else text
