"""Decide which plugins a process runs, under which names, with which commands and settings."""

from __future__ import annotations

import os
from collections import defaultdict

from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX
from lmcache_plugin_adapter.configuration.settings import PREFIX
from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .discovery import Scan, scan
from .file_names import NotAPlugin, PluginName, name_warning, runs_on
from .inspection import Inspection, Inspector
from .selection import could_run, is_wanted, names_of, select, unique_names, without_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set
    from typing import Literal

    from lmcache_plugin_adapter.configuration.settings import Settings
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.messages.problem import Level

    from .discovery import Found
    from .installed_plugin import Installed

    FileStatus = Literal[
        "runs", "refused", "disabled", "duplicate", "elsewhere", "no-role", "ignored"
    ]

_NAME_WARNINGS = 10
"""So many misnamed files are named in the log; a check lists them all."""


@frozen
class CheckedFile:
    """What becomes of one entry of a location, for people to read.

    Attributes:
        path: Absolute, as reached.
        location: The location that it was found in.
        relative: The path below the location.
        name: Its name as a plugin; None when it is none.
        status: ``runs``; ``refused`` (selected, but must not or cannot run);
            ``disabled`` by the settings; ``duplicate`` of another file that
            runs; ``elsewhere`` (a plugin, but not of these processes);
            ``no-role``; or ``ignored`` (hidden, leftover, data, no file).
        asks: Where its name asks to run, in words; empty when it is no plugin.
        runs_on: The processes that run it, or would if it were not refused.
        command: What is executed; empty when it does not run.
        problems: What is wrong, errors first. No text repeats the path.
        installed: What there is to know of an installed plugin.
    """

    path: str
    location: str
    relative: str
    name: str | None
    status: FileStatus
    asks: str
    runs_on: tuple[ProcessIdentity, ...]
    command: tuple[bytes, ...]
    problems: tuple[Problem, ...]
    installed: Installed | None = None


@frozen
class Plan:
    """What one process does.

    Attributes:
        plugins: Those to run and those refused, by path.
        problems: What to say besides: about locations, names, settings, and
            plugins that run but not quite as they ask.
    """

    plugins: tuple[PlannedPlugin, ...]
    problems: tuple[Problem, ...]


def make_plan(
    identity: ProcessIdentity,
    locations: Sequence[str],
    settings: Settings,
    python: str,
    path: str,
    progress: Callable[[str], None] | None = None,
    skip: frozenset[str] = frozenset(),
    import_path: Sequence[str] = (),
) -> Plan:
    """Search the locations and decide what a process runs.

    Args:
        identity: The process.
        locations: Files and directories, already expanded, and ``pkg:NAME``.
        settings: What is in force.
        python: The interpreter that runs the engine.
        path: Where interpreters are looked up, as the PATH variable has it.
        progress: Called with a location before it is touched, possibly more
            than once.
        skip: Locations not to touch.
        import_path: The engine's ``sys.path``, where installed plugins are.

    Returns:
        The same plan for the same files, whatever order they are listed in.
        Never raises, save what ``progress`` does.
    """
    found = scan(locations, progress, skip, import_path)
    return Planner(found, settings, python, path, progress).plan(identity)


class Planner:
    """Decide for one process after another, looking at each selected file once.

    Args:
        found: What the locations hold.
        settings: What is in force.
        python: The interpreter that runs the engine.
        path: Where interpreters are looked up.
        progress: Called with a location before its files are touched.
    """

    def __init__(
        self,
        found: Scan,
        settings: Settings,
        python: str,
        path: str,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._scan = found
        self._settings = settings
        self._inspector = Inspector(settings, python, path, progress)
        candidates = [found for found in found.entries if could_run(found)]
        self._candidates = {found.path: found for found in candidates}
        self._names = unique_names(candidates)

    def plan(self, identity: ProcessIdentity) -> Plan:
        """Decide what one process runs.

        Args:
            identity: The process.

        Returns:
            Its plan.
        """
        enabled = [
            found for found in self._select(identity) if self._inspector.settings_of(found).enabled
        ]
        # Location after location, so that a hung one is known by its name.
        for found in sorted(enabled, key=lambda found: found.location):
            self._inspect(found)
        problems = [*self._scan.problems, *self._broken(identity)]
        for found in enabled:
            inspection = self._inspect(found)
            problems += [Problem("warning", capitalised(text)) for text in inspection.findings]
            prefix = f"Plugin {quoted(self._names[found.path])}: "
            problems += [Problem("warning", prefix + text) for text in inspection.warnings]
        # Each process sees the same directory: one speaks for its workers.
        if identity.worker_id <= 0:
            problems += self._name_warnings(identity)
            problems += self.unknown_settings()
        plugins = tuple(self._planned(found) for found in enabled)
        return Plan(plugins, tuple(dict.fromkeys(problems)))

    def check(self, fleet: Sequence[ProcessIdentity]) -> tuple[CheckedFile, ...]:
        """Say of every entry what becomes of it in a whole fleet.

        Args:
            fleet: The processes, as of one replica: its scheduler and workers.

        Returns:
            One answer for each entry, by path.
        """
        running: defaultdict[str, list[ProcessIdentity]] = defaultdict(list)
        for identity in fleet:
            for found in self._select(identity):
                running[found.path].append(identity)
        runners: dict[object, Found] = {
            self._candidates[path].key: self._candidates[path] for path in running
        }
        return tuple(
            self._checked(found, fleet, tuple(running.get(found.path, ())), runners)
            for found in self._scan.entries
        )

    def _effective(self, identity: ProcessIdentity) -> ProcessIdentity:
        return identity if self._settings.filter_by_role else without_filter(identity)

    def _select(self, identity: ProcessIdentity) -> tuple[Found, ...]:
        return select(self._scan.entries, self._effective(identity))

    def _planned(self, found: Found) -> PlannedPlugin:
        inspection = self._inspect(found)
        package = found.installed
        settings = self._inspector.settings_of(found)
        backoff, rate, log = settings.backoff, settings.rate_limit, settings.log
        file_name = os.path.basename(found.path)
        return PlannedPlugin(
            names=tuple(dict.fromkeys((self._names[found.path], file_name, found.path))),
            path=found.path,
            key=found.key,
            file=file_name.removeprefix(INSTALLED_PREFIX),
            signature=found.signature,
            package=None if package is None else (package.project, package.version),
            argv=inspection.argv,
            own_args=len(settings.args) if inspection.argv else 0,
            environment={os.fsencode(k): os.fsencode(v) for k, v in settings.env.items()},
            refused=inspection.refused,
            restart=settings.restart,
            backoff=(backoff.initial, backoff.max, backoff.reset_after),
            stop_grace=settings.stop_grace,
            max_line_bytes=settings.max_line_bytes,
            ring_bytes=settings.ring_bytes,
            rate_limit=None if rate is None else (rate.lines, rate.per, rate.burst),
            log=None if log is None else (log.directory, log.max_bytes, log.files),
            relay=settings.relay,
            leftovers=settings.leftovers,
        )

    def _inspect(self, found: Found) -> Inspection:
        return self._inspector.inspect(found)

    def _broken(self, identity: ProcessIdentity) -> list[Problem]:
        """Say what bears a plugin's name but is no file."""
        identity = self._effective(identity)
        return [
            Problem(
                "error" if found.kind == "broken" else "note",
                f"Cannot run {quoted(found.path)}: {found.trouble}",
            )
            for found in self._scan.entries
            if found.kind in ("broken", "special")
            and isinstance(found.name, PluginName)
            and runs_on(found.name, identity)
        ]

    def _name_warnings(self, identity: ProcessIdentity) -> list[Problem]:
        """Warn about files that were probably meant to run, a few of them one by one."""
        if self._effective(identity).role is None:
            return []
        plugins: set[object] = {
            found.key for found in self._scan.entries if isinstance(found.name, PluginName)
        }
        texts = []
        for found in self._scan.entries:
            if found.kind != "file":
                continue
            text = self._misnamed(found, plugins)
            if text is not None:
                texts.append(f"{quoted(found.path)} does not run: {text}")
        if len(texts) > _NAME_WARNINGS:
            left = len(texts) - _NAME_WARNINGS
            more = f"{left:,} more files do not run because of their names"
            texts[_NAME_WARNINGS:] = [f"{more}: 'lmcache-plugins check' lists them"]
        return [Problem("warning", text) for text in texts]

    def _misnamed(self, found: Found, plugins: Set[object]) -> str | None:
        name = found.name
        if isinstance(name, PluginName):
            return name_warning(name, []) if name.never_runs else None
        if found.key in plugins:
            return None
        if name.kind == "near-miss" or name.runs_in_lmcache or found.is_location:
            return not_a_plugin(name, installed=found.installed is not None)
        return None

    def unknown_settings(self) -> list[Problem]:
        """Warn about settings for plugins that are not there."""
        if not self._scan.complete:
            return []
        known = {name for found in self._candidates.values() for name in names_of(found)[:3]}
        problems = []
        for key in self._settings.plugins:
            if key in known:
                continue
            meant = near_miss(key, sorted(known))
            hint = "" if meant is None else f"; did you mean {quoted(meant)}?"
            setting = quoted(f"{PREFIX}.plugins.{key}")
            text = f"Setting {setting} has no effect: no plugin has this name{hint}"
            problems.append(Problem("warning", text))
        return problems

    def _checked(
        self,
        found: Found,
        fleet: Sequence[ProcessIdentity],
        running: tuple[ProcessIdentity, ...],
        runners: Mapping[object, Found],
    ) -> CheckedFile:
        status, problems = self._verdict(found, fleet, running, runners)
        is_plugin = bool(running) or isinstance(found.name, PluginName)
        inspection = self._inspect(found) if status in ("runs", "refused") and running else None
        asks = found.name.describe() if isinstance(found.name, PluginName) else ""
        return CheckedFile(
            path=found.path,
            location=found.location,
            relative=found.relative,
            name=self._names.get(found.path, found.name.stem) if is_plugin else None,
            status=status,
            asks=asks,
            runs_on=running if status in ("runs", "refused") else (),
            command=inspection.argv if inspection else (),
            problems=problems,
            installed=found.installed,
        )

    def _verdict(
        self,
        found: Found,
        fleet: Sequence[ProcessIdentity],
        running: tuple[ProcessIdentity, ...],
        runners: Mapping[object, Found],
    ) -> tuple[FileStatus, tuple[Problem, ...]]:
        """Return what becomes of an entry and what is wrong with it."""
        name = found.name
        effective = [self._effective(identity) for identity in fleet]
        if found.kind != "file":
            if (
                found.kind == "broken"
                and isinstance(name, PluginName)
                and any(runs_on(name, identity) for identity in effective)
            ):
                return "refused", (Problem("error", found.trouble),)
            return "ignored", (Problem("note", found.trouble),)
        if running:
            if not self._inspector.settings_of(found).enabled:
                return "disabled", (Problem("note", "it is switched off by its setting 'enabled'"),)
            return self._inspected(found)
        other = runners.get(found.key)
        if other is not None and any(is_wanted(found, identity) for identity in effective):
            text = f"it is the same file as {quoted(other.path)}, which runs"
            return "duplicate", (Problem("note", text),)
        if isinstance(name, PluginName):
            warning = name_warning(name, fleet)
            if warning is not None:
                return "elsewhere", (Problem("warning", warning),)
            text = f"it runs on {name.describe()}, which is not among these processes"
            return "elsewhere", (Problem("note", text),)
        level: Level = "warning" if name.kind == "near-miss" or found.is_location else "note"
        status: FileStatus = "no-role" if name.kind in ("near-miss", "no-role") else "ignored"
        text = not_a_plugin(name, installed=found.installed is not None)
        return status, (Problem(level, text),)

    def _inspected(self, found: Found) -> tuple[FileStatus, tuple[Problem, ...]]:
        inspection = self._inspect(found)
        problems = [] if inspection.refused is None else [Problem("error", inspection.refused)]
        texts = (*inspection.findings, *inspection.warnings)
        problems += [Problem("warning", text) for text in texts]
        problems += inspection.hints
        return ("runs" if inspection.refused is None else "refused"), tuple(problems)


def not_a_plugin(name: NotAPlugin, *, installed: bool = False) -> str:
    """Say why a file is no plugin and which name would make it one."""
    if name.suggestion is None:
        return name.reason
    if installed:
        return f"{name.reason}; its package should name it {quoted(name.suggestion)}"
    text = f"{name.reason}; name it {quoted(name.suggestion)}"
    if name.kind == "no-role":
        helper = "_" + name.suggestion.removeprefix("all_")
        text = f"{name.reason}; if it is a plugin name it {quoted(name.suggestion)}"
        if name.runs_in_lmcache:
            text += f", otherwise {quoted(helper)} (LMCache's own launcher would run it)"
    return text


def capitalised(text: str) -> str:
    """Begin a line of the log as they all begin."""
    return text[:1].upper() + text[1:]
