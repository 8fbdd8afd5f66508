# SPDX-License-Identifier: Apache-2.0
"""Report for ``check`` which files run on which processes, and why others do not."""

from __future__ import annotations

from collections import defaultdict

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.contract.identity import ALL_ROLES, Role
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .file_names import PluginName, id_note, name_advice, name_warning, runs_on
from .selection import is_wanted, why_left_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.messages.problem import Level

    from .entry import Entry
    from .installed_plugin import InstalledPlugin
    from .plugin_files import PluginFiles

    FileStatus = Literal[
        "runs", "refused", "disabled", "duplicate", "elsewhere", "no-role", "ignored"
    ]


@frozen
class FileReport:
    """The report on one entry of a location.

    Attributes:
        path: Absolute path, with symbolic links kept.
        location: The location that holds the entry.
        relative: The path below the location.
        name: The plugin's name; None when the entry is not a plugin.
        status: ``runs``; ``refused`` (selected, but must not or cannot run);
            ``disabled`` by the settings; ``duplicate`` of another file that
            runs; ``elsewhere`` (a plugin of other processes); ``no-role``; or
            ``ignored`` (hidden, leftover, data, not a file).
        runs_on: The processes that run the plugin, or would if it were not refused.
        command: The command; empty when the entry does not run.
        problems: Problems, errors first. No text repeats the path.
        installed: The installed plugin, if the entry is one.
    """

    path: str
    location: str
    relative: str
    name: str | None
    status: FileStatus
    runs_on: tuple[ProcessIdentity, ...]
    command: tuple[bytes, ...]
    problems: tuple[Problem, ...]
    installed: InstalledPlugin | None = None


def report_files(
    identities: Sequence[ProcessIdentity], files: PluginFiles
) -> tuple[FileReport, ...]:
    """Report what happens to every entry of the locations.

    Args:
        identities: The processes, such as the scheduler and workers of one replica.
        files: What the locations hold.

    Returns:
        One report for each entry, ordered by path.
    """
    running: defaultdict[str, list[ProcessIdentity]] = defaultdict(list)
    selected: dict[str, Entry] = {}
    for identity in identities:
        for entry in files.select(identity):
            running[entry.path].append(identity)
            selected.setdefault(entry.path, entry)
    by_key: dict[object, Entry] = {entry.key: entry for entry in selected.values()}
    reports = []
    for entry in files.entries:
        processes = tuple(running.get(entry.path, ()))
        command: tuple[bytes, ...] = ()
        if processes and not files.settings_of(entry).enabled:
            status: FileStatus = "disabled"
            problems = [Problem("note", "it is switched off by its setting 'enabled'")]
        elif processes:
            inspection = files.inspect(entry)
            command = inspection.argv
            texts = (*inspection.exposures, *inspection.warnings)
            problems = [Problem("error", inspection.refused)] if inspection.refused else []
            problems += [Problem("error", text) for text in inspection.errors]
            problems += [*(Problem("warning", text) for text in texts), *inspection.hints]
            status = "refused" if inspection.refused else "runs"
            if isinstance(entry.name, PluginName) and (hint := id_note(entry.name)):
                problems.append(Problem("note", hint))
            every = files.settings_of(entry).every
            if every is not None and not inspection.refused:
                problems.append(Problem("note", f"it runs every {every:g} s"))
        else:
            status, level, text = _why_not(entry, identities, files, by_key)
            problems = [Problem(level, text)]
        reports.append(
            FileReport(
                path=entry.path,
                location=entry.location,
                relative=entry.relative,
                name=(
                    files.names.get(entry.path, entry.name.stem)
                    if processes or entry.is_plugin
                    else None
                ),
                status=status,
                runs_on=processes if status in ("runs", "refused") else (),
                command=command,
                problems=tuple(problems),
                installed=entry.installed,
            )
        )
    return tuple(reports)


def _why_not(
    entry: Entry,
    identities: Sequence[ProcessIdentity],
    files: PluginFiles,
    by_key: dict[object, Entry],
) -> tuple[FileStatus, Level, str]:
    """Return the status of an entry that does not run, and why."""
    name = entry.name
    filtered = [files.filtered(identity) for identity in identities]
    if entry.kind != "file":
        if (
            entry.kind == "broken"
            and isinstance(name, PluginName)
            and any(runs_on(name, identity) for identity in filtered)
        ):
            return "refused", "error", entry.trouble
        return "ignored", "note", entry.trouble
    other = by_key.get(entry.key)
    if other is not None and any(is_wanted(entry, identity) for identity in filtered):
        return "duplicate", "note", f"it is the same file as {quoted(other.path)}, which runs"
    if isinstance(name, PluginName):
        warning = name_warning(name, identities)
        if warning is not None:
            return "elsewhere", "warning", warning
        text = f"it runs on {name.describe()}, which is not among these processes"
        return "elsewhere", "note", text
    if not files.filters_by_role and (left_out := why_left_out(entry)) is not None:
        return "ignored", "warning", left_out
    level: Level = "warning" if name.kind == "near-miss" or entry.is_location else "note"
    status: FileStatus = "no-role" if name.kind in ("near-miss", "no-role") else "ignored"
    roles = {identity.role for identity in identities}
    role = Role.SERVER.value if roles == {Role.SERVER} else ALL_ROLES
    return status, level, name_advice(name, installed=entry.installed is not None, role=role)
