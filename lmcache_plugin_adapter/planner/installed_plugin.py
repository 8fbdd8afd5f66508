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

from .installed_packages import MAX_NAME, Packages, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .installed_packages import Offer

GALLERY = (
    "all_alert_reporter",
    "all_metric_reporter",
    "scheduler_heartbeat",
    "scheduler_log_reporter",
)
"""The plugins of this package, which are known even where it is not installed."""

GALLERY_REQUIREMENT = "lmcache-plugin-adapter[gallery]"
"""What brings them and all that they need."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

RUNNER = os.path.join(_PACKAGE, "kit", "run_entry_point.py")
"""The program that the engine's Python runs them with."""

_MAX_VALUE = 500
_MAX_LISTED = 10


class Installed:
    """An installed plugin, found and looked at without importing anything of it.

    Attributes:
        name: The entry point's name.
        value: What the entry point names, as it is written.
        reference: ``MODULE:FUNCTION``; empty where the value does not say that.
        project: The package's name.
        version: The package's version; empty where its metadata do not say it.
        root: The directory of ``sys.path`` that the package was found in.
        file: The module's file; empty where it was not found.
        files: All whose writers could change what runs: the entry point, the
            modules that importing it runs, their compiled forms.
        signature: Changes when one of these does, or the package is installed anew.
        trouble: Why it cannot run and how to mend it; empty when it can.
        warning: What is probably not meant; empty when all is well.
        note: What only a check shows; empty for nothing.
    """

    def __init__(self, offer: Offer, packages: Packages) -> None:
        self.name = offer.name
        self.value = offer.value
        self.project, self.version = offer.project
        self.root = offer.root
        self.reference = read_reference(offer.value)
        self.trouble = self.warning = self.note = self.file = ""
        metadata = [os.path.join(offer.metadata, name) for name in ("entry_points.txt", "RECORD")]
        files = metadata[:1]
        compiled: list[str] = []
        if not self.reference:
            shown = offer.value[:MAX_NAME] + "…" * (len(offer.value) > MAX_NAME)
            self.trouble = (
                f"its package {quoted(self.package)} says that {quoted(shown)} is to be run, which "
                "names no function: an entry point is written as 'package.module:function'"
            )
        else:
            module = self.reference.partition(":")[0]
            chain = module_files(module, packages.path)
            if not chain and packages.finders:
                from .editable import read_finders

                chain = module_files(module, packages.path, read_finders(packages.finders))
            files += [file for file, _ in chain]
            compiled = [_nearest(cached) for _, cached in chain if cached]
            self.file = files[-1] if chain else ""
            if not chain:
                self.note = (
                    f"the file of module {quoted(module)} is not found without running code of "
                    "its package (an editable installation?): who can write to it is not checked"
                )
        hidden = packages.hidden.get(offer.name)
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


def read_packages(path: Iterable[str], location: str, progress: Callable[[str], None]) -> Packages:
    """Read what the packages of a ``sys.path`` offer.

    Args:
        path: The engine's ``sys.path``.
        location: The first location that asks for it.
        progress: Called with that, now and then.
    """
    return Packages(path, lambda: progress(location))


def find_installed(
    location: str, packages: Packages
) -> tuple[Installed | None, tuple[Problem, ...]]:
    """Look an installed plugin up.

    Args:
        location: ``pkg:NAME``.
        packages: Where to look.

    Returns:
        The plugin, if there is one, and what is wrong where there is none.
    """
    name = location.removeprefix(INSTALLED_PREFIX)
    offer = packages.offers.get(name)
    if offer is not None:
        return Installed(offer, packages), ()
    return None, (Problem("warning", f"Location {quoted(location)} {_missing(name, packages)}"),)


def read_reference(value: str) -> str:
    """Return ``MODULE:FUNCTION`` of an entry point's value, or nothing where it is malformed.

    Both are identifiers with dots between them. Extras, which old packages
    write in brackets behind it, are passed over.
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
    """Find what importing a module runs, without running anything.

    Args:
        module: Its full name.
        path: Absolute directories.
        elsewhere: Modules that are not there, see :func:`.planner.editable.read_finders`.

    Returns:
        The files of its packages and its own, in this order, each with the
        path of its compiled form, empty where it has none; nothing where its
        own file is not found, as when only code of an editable installation
        knows where it is.
    """
    if module.partition(".")[0] in sys.builtin_module_names:
        return []
    from importlib.machinery import PathFinder  # only who names an installed plugin pays for it

    files: list[tuple[str, str]] = []
    origin: str | None = None
    name = ""
    for word in module.split("."):
        name = f"{name}.{word}".lstrip(".")
        try:
            # By its last word: the full name would ask for the packages above to be imported.
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
    """Say what is installed, a few of many."""
    names = sorted(packages.offers)
    shown = [f"{quoted(name)} ({packages.offers[name].package})" for name in names[:_MAX_LISTED]]
    if len(names) > _MAX_LISTED:
        shown.append(f"{len(names) - _MAX_LISTED:,} more")
    return ", ".join(shown)


def _missing(name: str, packages: Packages) -> str:
    """Say why there is no such plugin and what there is."""
    known = sorted({*packages.offers, *GALLERY})
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
    there = f"installed are {listed(packages)}" if packages.offers else "no plugin is installed"
    parts = [text, *packages.troubles[:_MAX_LISTED], there]
    if meant is not None and meant != name:
        parts.append(f"did you mean {quoted(INSTALLED_PREFIX + meant)}?")
        if meant not in packages.offers:
            parts[-1] += f" (pip install '{GALLERY_REQUIREMENT}')"
    return "; ".join(parts)


def _nearest(cached: str) -> str:
    """Return a compiled form, or the directory where Python would look for it, or nothing."""
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
