# SPDX-License-Identifier: Apache-2.0
"""The environment variables of plugins, and the file with LMCache's configuration."""

from __future__ import annotations

import json
import os

from lmcache_plugin_adapter.configuration.exec_limits import EXEC_STRING_LIMIT
from lmcache_plugin_adapter.contract import variables
from lmcache_plugin_adapter.contract.variables import CONFIG, CONFIG_FILE, METRICS_DIRECTORY
from lmcache_plugin_adapter.messages.problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec

_NEVER_HIDDEN = ("PATH", "PYTHONUNBUFFERED")
"""The variables of the contract without a prefix of its own."""

_METRICS_LOWER_CASE = METRICS_DIRECTORY.lower()


def plugin_environment(
    spec: LaunchSpec,
    environ: Mapping[str, str],
    config_file: str | None,
    ending_file: str | None = None,
) -> tuple[dict[str, str | None], list[Problem]]:
    """Return how the plugins' environment differs from the engine's; never raises.

    Args:
        spec: The launch spec.
        environ: The engine's environment.
        config_file: The file that holds :func:`config_text`, or None.
        ending_file: The file that will hold the reason for a SIGTERM, or None.

    Returns:
        The variables to set (text) and to remove (None), the same for all plugins
        (without ``LMCACHE_RUNTIME_PLUGIN_NAME``), each accepted by the kernel;
        and the problems.
    """
    identity = spec.identity
    problems: list[Problem] = []
    metrics = environ.get(METRICS_DIRECTORY) or environ.get(_METRICS_LOWER_CASE)
    values: dict[str, str | None] = {
        variables.ROLE: "" if identity.role is None else identity.role.value.upper(),
        variables.WORKER_ID: str(identity.worker_id),
        variables.WORKER_COUNT: str(identity.worker_count),
        CONFIG: _config_variable(spec, config_file, problems),
        CONFIG_FILE: config_file,
        variables.ENDING_FILE: ending_file,
        variables.DP_RANK: str(identity.dp_rank),
        variables.DP_SIZE: str(identity.dp_size),
        variables.ENGINE_PID: str(spec.engine_pid),
        variables.RUN_ID: spec.run_id,
        "PYTHONUNBUFFERED": "1",
        "PATH": plugin_path(spec.python, environ.get("PATH")),
        METRICS_DIRECTORY: None,
        _METRICS_LOWER_CASE: None,
        variables.METRICS_HANDED_OVER: metrics or None,
        variables.NOTIFY_SOCKET: None,
        variables.WATCHDOG_USEC: None,
        variables.WATCHDOG_PID: None,
    }
    for name, older in variables.OLDER_NAMES.items():
        values[older] = values[name]
    for name, value in values.items():
        if value is not None and not _fits(name, value):
            values[name] = environ.get(name) if name == "PATH" else None
            what = "keeps the engine's value" if name == "PATH" else "is left out"
            problems.append(
                Problem(
                    "warning",
                    f"Variable {name!r} {what}: its value is over the kernel's limit of "
                    f"{EXEC_STRING_LIMIT} bytes or cannot be encoded",
                )
            )
    return values, problems


def hidden_variables(patterns: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Return the variables that match a pattern, without those of the contract."""
    if not patterns:
        return []
    from fnmatch import fnmatchcase  # only the setting pays for it

    return [
        name
        for name in environ
        if name not in _NEVER_HIDDEN
        and not name.startswith((variables.OWN, variables.OLDER))
        and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def plugin_path(python: str, path: str | None) -> str:
    """Return the PATH of plugins, and for looking up their interpreters.

    The directory of the engine's Python comes first, as if its environment were
    activated: ``#!/usr/bin/env python3`` then finds the Python that runs vLLM,
    even if vLLM was started by its full path.

    Args:
        python: The interpreter that runs the engine.
        path: The engine's PATH.
    """
    path = path or os.defpath
    first = os.path.dirname(python)
    # PATH cannot contain a directory with a colon.
    if not first or ":" in first or path.partition(":")[0] == first:
        return path
    return f"{first}:{path}"


def config_text(spec: LaunchSpec) -> str:
    """Return the JSON text of CONFIG_FILE: LMCache's whole configuration.

    The function adds ``runtime_plugin_locations`` and ``extra_config`` if the
    configuration lacks them. Text that is not a JSON object is returned unchanged;
    empty text becomes an object of these two keys.
    """
    return _complete(spec, [])


def write_config_file(
    directory: int | str, name: str, text: str, owner: tuple[int, int] | None = None
) -> tuple[str | None, list[Problem]]:
    """Write a file that only one user can read, completely or not at all.

    Args:
        directory: The path of its directory, or an open descriptor of it.
        name: The file's name; an existing file is replaced.
        text: The content.
        owner: The numbers of its user and group; None for those of this process.

    Returns:
        The file's name if ``directory`` is a descriptor, else its path; or None
        and one problem if the file could not be written.
    """
    path, dir_fd = (
        (name, directory) if isinstance(directory, int) else (os.path.join(directory, name), None)
    )
    # A random name and O_EXCL: a file that somebody else put there is never written to.
    temporary = f"{path}.{os.urandom(8).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
        try:
            with open(fd, "wb") as file:
                os.fchmod(fd, 0o600)  # independent of the umask
                file.write(text.encode("utf-8", "surrogateescape"))
                if owner is not None:
                    os.fchown(fd, *owner)
            os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            os.unlink(temporary, dir_fd=dir_fd)
            raise
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        return None, [
            Problem(
                "warning",
                f"Cannot write configuration file {path!r}: {reason}; plugins run without "
                f"{CONFIG_FILE}",
            )
        ]
    return path, []


def _complete(spec: LaunchSpec, problems: list[Problem]) -> str:
    """Return the text of :func:`config_text`, and append its problems."""
    text = spec.config_json
    what = "plugins get it as it is"
    try:
        config = json.loads(text) if text.strip() else None
        if isinstance(config, dict):
            missing = {key: value for key, value in _two_keys(spec).items() if key not in config}
            return json.dumps({**config, **missing}) if missing else text
        reason = "it is not a JSON object"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    if not text.strip():
        reason, what = "it is empty", "plugins get nothing of it but 'runtime_plugin_locations'"
        text = json.dumps(_two_keys(spec))
    problems.append(Problem("warning", f"Cannot read LMCache's configuration: {reason}; {what}"))
    return text


def _two_keys(spec: LaunchSpec) -> dict[str, object]:
    """Return the two keys that plugins rely on."""
    locations = spec.locations
    if isinstance(locations, (list, tuple)):
        locations = [str(location) for location in locations]
    elif locations is not None:
        locations = [str(locations)]
    return {"runtime_plugin_locations": locations, "extra_config": None}


def _config_variable(
    spec: LaunchSpec, config_file: str | None, problems: list[Problem]
) -> str | None:
    """Return as much of the configuration as one variable can hold."""
    whole = _complete(spec, problems)
    if _config_fits(whole):
        return whole
    what, reduced = "is left out", None
    try:
        config = json.loads(whole)
        if isinstance(config, dict):
            compact = json.dumps(config, separators=(",", ":"))
            if _config_fits(compact):
                return compact
            two = json.dumps({key: config[key] for key in _two_keys(spec)}, separators=(",", ":"))
            if _config_fits(two):
                what, reduced = "holds only 'runtime_plugin_locations' and 'extra_config'", two
    except (ValueError, RecursionError):
        pass  # _complete reports it
    size = len(whole.encode("utf-8", "surrogatepass"))
    where = f"file {config_file!r} has it all" if config_file else "there is no file that has it"
    problems.append(
        Problem(
            "warning",
            f"Variable {CONFIG!r} {what}: LMCache's configuration has {size} bytes, the kernel "
            f"takes {EXEC_STRING_LIMIT} bytes in one variable; {where} ({CONFIG_FILE})",
        )
    )
    return reduced


def _config_fits(text: str) -> bool:
    """Return whether the kernel accepts ``text`` under both names of the variable."""
    return _fits(CONFIG, text) and _fits(variables.OLDER_NAMES[CONFIG], text)


def _fits(name: str, value: str) -> bool:
    """Return whether the kernel accepts the variable."""
    try:
        size = len(os.fsencode(f"{name}={value}")) + 1
    except UnicodeEncodeError:
        return False
    return size <= EXEC_STRING_LIMIT and "\0" not in value
