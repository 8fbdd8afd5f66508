# SPDX-License-Identifier: Apache-2.0
"""vLLM's ``--kv-transfer-config``, as ``doctor`` reads it: where LMCache, and so plugins, run."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from .inputs import SERVER_MODULE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IN_PROCESS = "in-process"
MULTIPROCESS = "multiprocess"

AUTOSTART = "lmcache.mp.autostart"
SERVER_ARGS = "lmcache.mp.autostart.server_args"
_OPTION = f'--server-module \'{{"module_path": "{SERVER_MODULE}", "config": {{…}}}}\''
_FORBIDDEN = ("--host", "--port", "--http-host")
_TRUE = ("1", "true", "yes", "y", "on")


class TransferConfigError(ValueError):
    """The text is not a configuration that vLLM takes."""


def read_transfer_config(text: str) -> Mapping[str, Any]:
    """Read the JSON object of ``--kv-transfer-config``.

    Raises:
        TransferConfigError: It is no JSON object.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise TransferConfigError(f"cannot read --kv-transfer-config: {error}") from error
    if not isinstance(found, dict):
        raise TransferConfigError("cannot read --kv-transfer-config: it is no JSON object")
    return found


def lmcache_connectors(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each connector of LMCache's with the mode it runs in, children included."""
    name = str(config.get("kv_connector"))
    words = f"{name}{config.get('kv_connector_module_path')}".lower().replace("_", "")
    if "lmcache" in words:
        yield MULTIPROCESS if "lmcachemp" in words else IN_PROCESS, config
    children = _extra(config).get("connectors")
    for child in children if isinstance(children, list) else ():
        if isinstance(child, dict):
            yield from lmcache_connectors(child)


def examine_connector(mode: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """Return level and text of what the connector means for plugins."""
    name = config.get("kv_connector")
    if mode == IN_PROCESS:
        if starts_server(config):
            return "warning", f"{AUTOSTART!r} has no effect with {name!r}: it runs in vLLM itself"
        return "ok", f"{name!r} runs LMCache and its plugins in vLLM's processes"
    if not starts_server(config):
        text = f"{name!r} connects to an LMCache server, and plugins run beside that server: run "
        return "ok", f"{text}'lmcache-plugins doctor --server' in its environment"
    return _examine_server_args(_extra(config).get(SERVER_ARGS, ""))


def starts_server(config: Mapping[str, Any]) -> bool:
    """Return whether a connector's configuration has vLLM start LMCache's server."""
    value = _extra(config).get(AUTOSTART)
    return value is True or str(value).strip().lower() in _TRUE


def _examine_server_args(value: object) -> tuple[str, str]:
    try:
        words = shlex.split(value) if isinstance(value, str) else None
    except ValueError as error:
        return "off", f"vLLM cannot start LMCache's server: {SERVER_ARGS!r} is no command: {error}"
    if words is None:
        return "off", f"vLLM cannot start LMCache's server: {SERVER_ARGS!r} must be text"
    for word in words:
        if word.partition("=")[0] in _FORBIDDEN:
            text = f"LMCache refuses {word.partition('=')[0]!r} in {SERVER_ARGS!r}"
            return "off", f"vLLM cannot start LMCache's server: {text}"
    for text in _server_modules(words):
        try:
            found = json.loads(text)
        except ValueError as error:
            return "off", f"vLLM cannot start LMCache's server: --server-module is no JSON: {error}"
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, dict) and one.get("module_path") == SERVER_MODULE:
                return "ok", "vLLM starts LMCache's server, and plugins run beside it"
    return "off", (
        "vLLM starts LMCache's server without plugins of this package: add "
        f"{_OPTION} to {SERVER_ARGS!r}"
    )


def _server_modules(words: list[str]) -> Iterator[str]:
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--server-module":
            if equals:
                yield value
            elif place + 1 < len(words):
                yield words[place + 1]


def _extra(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("kv_connector_extra_config")
    return found if isinstance(found, dict) else {}
