# SPDX-License-Identifier: Apache-2.0
"""Read a YAML or JSON file that holds a mapping, with exact places in all errors.

For the command line only: it needs PyYAML, which engine and supervisor never import.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from lmcache_plugin_adapter.messages.describe import describe_type, show
from lmcache_plugin_adapter.messages.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAX_VALUES = 1_000_000
_MERGE = "tag:yaml.org,2002:merge"


class ConfigError(Exception):
    """The configuration cannot be used; the text starts with ``FILE:``, or with
    ``FILE:LINE:COLUMN:`` if the error has a place.
    """  # noqa: D205


def read_yaml(
    path: str, key_note: Callable[[str], str | None] | None = None
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the content of a file as JSON has it, and what is doubtful in it.

    Args:
        path: The file.
        key_note: Returns what is doubtful about a top-level key, if anything.

    Raises:
        ConfigError: The file cannot be read or is not YAML.
    """
    problems: list[Problem] = []
    found = _load(path, _read(path), problems, key_note)
    try:
        return dict(_JsonConverter(path, problems).items(found, "")), problems
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or a value contains itself") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a place for every error and a list of doubtful keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.doubtful: list[tuple[Any, str]] = []

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Record equal keys: PyYAML silently takes the last of them."""
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
        """Construct a value; add the place to errors of Python's own types."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            # Such as the date 2026-13-45, or !!int with no number after it.
            kind = node.tag.rpartition(":")[2]
            text = f"value cannot be read as {kind} ({error})"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error


class _JsonConverter:
    """Converts YAML's values to JSON's; reports the values that JSON does not have."""

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
        if self._count > _MAX_VALUES:
            raise ConfigError(f"{self._path}: has more than {_MAX_VALUES:,} values")
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
                "LMCache cannot pass on its configuration with it; put it in quotes",
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
        place = _place_in(data[: error.start].decode(errors="replace"))
        byte = data[error.start]
        raise ConfigError(f"{path}:{place}: byte 0x{byte:02x} is not UTF-8 text") from error


def _load(
    path: str,
    text: str,
    problems: list[Problem],
    key_note: Callable[[str], str | None] | None,
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
        what = f"character {text[error.position]!r} is not allowed"
        place = _place_in(text[: error.position])
        raise ConfigError(f"{path}:{place}: cannot read as YAML: {what}") from error
    except RecursionError:
        raise ConfigError(f"{path}: cannot read as YAML: nested too deeply") from None
    if root is None or not found:  # LMCache takes 0 and an empty list for an empty file too
        return {}
    if not isinstance(root, yaml.MappingNode) or not isinstance(found, dict):
        what = f"is {describe_type(found)}, accepted is a mapping (key: value)"
        raise ConfigError(f"{path}:{_place(root.start_mark)}: the file {what}")
    for key, _ in root.value:
        note = key_note(key.value) if key_note and isinstance(key, yaml.ScalarNode) else None
        if note:
            loader.doubtful.append((key.start_mark, note))
    problems.extend(
        Problem("warning", f"{path}:{_place(mark)}: {text}")
        for mark, text in sorted(loader.doubtful, key=lambda doubt: doubt[0].index)
    )
    return found


def _place(mark: Any) -> str:
    return f"{mark.line + 1}:{mark.column + 1}"


def _place_in(before: str) -> str:
    """Return line and column of the place after ``before``."""
    lines = before.split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"
