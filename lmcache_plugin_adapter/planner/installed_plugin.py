# SPDX-License-Identifier: Apache-2.0
"""Plugins of installed packages: locations of the form ``pkg:NAME``.

``NAME`` is an entry point of the group ``lmcache.runtime_plugins``, as
``all_metric_reporter = "lmcache_plugin_adapter.gallery.metric_reporter:main"``;
it follows the grammar of file names, without an extension.
"""

from __future__ import annotations

import keyword
import os
import sys

from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .installed_packages import MAX_NAME, Packages, is_name, read_finders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .installed_packages import EntryPoint

GALLERY = (
    "all_alert_reporter",
    "all_metric_reporter",
    "scheduler_heartbeat",
    "scheduler_log_reporter",
    "server_heartbeat",
    "server_log_reporter",
)
"""The plugins of this package, known even if it is not installed for the engine."""

GALLERY_REQUIREMENT = "lmcache-plugin-adapter[gallery]"
"""The requirement that installs them and their dependencies."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

RUNNER = os.path.join(_PACKAGE, "kit", "run_entry_point.py")
"""The program that runs an entry point, under the engine's Python."""

_MAX_VALUE = 500
_MAX_LISTED = 10


class InstalledPlugin:
    """An installed plugin, inspected without importing it.

    Attributes:
        name: The entry point's name.
        value: The entry point's value, as the package has it.
        reference: ``MODULE:FUNCTION``; empty if the value is malformed.
        project: The package's name.
        version: The package's version; empty if unknown.
        root: The directory of ``sys.path`` that holds the package.
        file: The module's file; empty if it was not found.
        files: All files whose writers could change what runs: the entry point,
            the modules that importing it runs, and their compiled forms.
        signature: Changes with these files, and with a new installation.
        trouble: Why the plugin cannot run and how to repair it; empty if it can.
        warning: A probable mistake; empty if there is none.
        note: What only ``check`` shows; empty if there is nothing.
    """

    def __init__(self, entry_point: EntryPoint, packages: Packages) -> None:
        self.name = entry_point.name
        self.value = entry_point.value
        self.project, self.version = entry_point.project
        self.root = entry_point.root
        self.reference = read_reference(entry_point.value)
        self.trouble = self.warning = self.note = self.file = ""
        metadata = [
            os.path.join(entry_point.metadata, name) for name in ("entry_points.txt", "RECORD")
        ]
        files = metadata[:1]
        compiled: list[str] = []
        if not self.reference:
            shown = entry_point.value[:MAX_NAME] + "…" * (len(entry_point.value) > MAX_NAME)
            self.trouble = (
                f"its package {quoted(self.package)} says that {quoted(shown)} is to be run, which "
                "names no function: an entry point is written as 'package.module:function'"
            )
        else:
            module = self.reference.partition(":")[0]
            chain = module_files(module, packages.path)
            if not chain and packages.finders:
                chain = module_files(module, packages.path, read_finders(packages.finders))
            files += [file for file, _ in chain]
            compiled = [_nearest(cached) for _, cached in chain if cached]
            self.file = files[-1] if chain else ""
            if not chain:
                self.note = (
                    f"the file of module {quoted(module)} is not found without running code of "
                    "its package (an editable installation?): who can write to it is not checked"
                )
        hidden = packages.hidden.get(entry_point.name)
        if hidden:
            others = ", ".join(quoted(other.package) for other in hidden)
            self.warning = (
                f"{others} {'offers' if len(hidden) == 1 else 'offer'} a plugin of this name, too: "
                f"that of {quoted(self.package)} comes first on sys.path and is the one that runs"
            )
        self.files = tuple(dict.fromkeys(filter(None, [*files, *compiled])))
        self.signature = _signature((*metadata, *files[1:]))

    @property
    def package(self) -> str:
        """The package for people: ``NAME VERSION``."""
        return f"{self.project} {self.version}".strip()


def find_installed(
    location: str, packages: Packages
) -> tuple[InstalledPlugin | None, tuple[Problem, ...]]:
    """Look an installed plugin up.

    Args:
        location: ``pkg:NAME``.
        packages: The installed packages.

    Returns:
        The plugin or None, and the problems if there is none.
    """
    name = location.removeprefix(INSTALLED_PREFIX)
    entry_point = packages.entry_points.get(name)
    if entry_point is not None:
        return InstalledPlugin(entry_point, packages), ()
    return None, (Problem("warning", f"Location {quoted(location)} {_missing(name, packages)}"),)


def read_reference(value: str) -> str:
    """Return ``MODULE:FUNCTION`` of an entry point's value; empty if it is malformed.

    Both are identifiers separated by dots. The extras that old packages append in
    brackets are ignored.
    """
    if value.endswith("]"):
        value = value.partition("[")[0]
    module, colon, function = (part.strip() for part in value.partition(":"))
    words = [*module.split("."), *function.split(".")]
    if not colon or len(value) > _MAX_VALUE:
        return ""
    if not all(word.isidentifier() and not keyword.iskeyword(word) for word in words):
        return ""
    return f"{module}:{function}"


def module_files(
    module: str, path: Sequence[str], elsewhere: Mapping[str, tuple[str, str]] | None = None
) -> list[tuple[str, str]]:
    """Find the files that importing a module runs, without running anything.

    Args:
        module: The module's full name.
        path: Absolute directories.
        elsewhere: Modules of editable installations, from
            :func:`.planner.installed_packages.read_finders`.

    Returns:
        The files of the packages above the module, then its own, each with the
        path of its compiled form, possibly empty. An empty list if the module's
        own file is not found, such as when only the code of an editable
        installation can find it.
    """
    if module.partition(".")[0] in sys.builtin_module_names:
        return []
    from importlib.machinery import PathFinder  # only an installed plugin pays for it

    files: list[tuple[str, str]] = []
    origin: str | None = None
    name = ""
    for word in module.split("."):
        name = f"{name}.{word}".lstrip(".")
        try:
            # By its last word: the full name would import the packages above it.
            spec = PathFinder.find_spec(word, list(path))
            if spec is None and elsewhere and name in elsewhere:
                place, finder = elsewhere[name]
                files.append((finder, ""))
                spec = PathFinder.find_spec(os.path.basename(place), [os.path.dirname(place)])
        except (ImportError, OSError, ValueError):
            return []
        if spec is None:
            return []
        origin = spec.origin if spec.has_location else None
        if origin is not None:
            files.append((getattr(spec.loader, "archive", None) or origin, spec.cached or ""))
        path = list(spec.submodule_search_locations or ())
    return [] if origin is None else files


def listed(packages: Packages) -> str:
    """Return the installed plugins in words, a limited number of them."""
    names = sorted(packages.entry_points)
    shown = [
        f"{quoted(name)} ({packages.entry_points[name].package})" for name in names[:_MAX_LISTED]
    ]
    if len(names) > _MAX_LISTED:
        shown.append(f"{len(names) - _MAX_LISTED:,} more")
    return ", ".join(shown)


def _missing(name: str, packages: Packages) -> str:
    """Return why there is no such plugin, and which plugins there are."""
    known = sorted({*packages.entry_points, *GALLERY})
    meant = near_miss(name[:MAX_NAME], known)
    if name in GALLERY:
        text = (
            "is a plugin of lmcache-plugin-adapter, which is not installed for the engine's "
            f"Python: pip install '{GALLERY_REQUIREMENT}'"
        )
    elif not is_name(name):
        text = "names no installed plugin: a name has letters, digits, '_' and '-' only"
        stem = name.partition(".")[0]
        meant = meant or (stem if stem in known else None)
    else:
        text = "is offered by no package that is installed for the engine's Python"
    there = (
        f"installed are {listed(packages)}" if packages.entry_points else "no plugin is installed"
    )
    parts = [text, *packages.troubles[:_MAX_LISTED], there]
    if meant is not None and meant != name:
        parts.append(f"did you mean {quoted(INSTALLED_PREFIX + meant)}?")
        if meant not in packages.entry_points:
            parts[-1] += f" (pip install '{GALLERY_REQUIREMENT}')"
    return "; ".join(parts)


def _nearest(cached: str) -> str:
    """Return a compiled form, or the directory that would hold it, or an empty string."""
    for path in (cached, os.path.dirname(cached)):
        if os.path.lexists(path):
            return path
    return ""


def _signature(files: Sequence[str]) -> tuple[int, ...]:
    numbers: list[int] = []
    for file in files:
        try:
            facts = os.stat(file)
        except OSError:
            numbers.append(0)
            continue
        numbers += (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
    return tuple(numbers)
