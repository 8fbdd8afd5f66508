"""The files that the locations hold, under the settings in force: selected, named, inspected."""

from __future__ import annotations

from lmcache_plugin_adapter.configuration.settings_table import PREFIX
from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.messages.wording import error_reason

from .interpreter import Interpreters
from .permissions import PermissionRules
from .selection import could_run, names_of, select, unique_names, without_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.configuration.settings import PluginSettings, Settings
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

    from .discovery import Scan
    from .entry import Entry


@frozen
class Inspection:
    """The result of the inspection of one file.

    Attributes:
        argv: The command; empty when the file is refused.
        refused: Why the file must not or cannot run and how to repair it, or None.
        exposures: Who else could change the file, where that is no reason to refuse it.
        warnings: What runs differently than the file says.
        hints: What only ``check`` shows.
    """

    argv: tuple[bytes, ...] = ()
    refused: str | None = None
    exposures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hints: tuple[Problem, ...] = ()


class PluginFiles:
    """Select, name and inspect the files of a scan. Each file is inspected once.

    Args:
        scanned: The content of the locations.
        settings: The settings in force.
        python: The interpreter that runs the engine.
        path: The PATH to look interpreters up in.
        progress: Called with a location before an inspection touches its files.

    Attributes:
        entries: All entries, ordered by path.
        problems: Locations and directories that could not be searched.
        names: The unique name of each path that could be a plugin.
    """

    def __init__(
        self,
        scanned: Scan,
        settings: Settings,
        python: str,
        path: str,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._interpreters = Interpreters(python, path)
        self._rules = PermissionRules()
        self._progress = progress
        self._touched: str | None = None
        self._inspected: dict[str, Inspection] = {}
        self.entries = scanned.entries
        self.problems = scanned.problems
        self._complete = scanned.complete
        self._candidates = [entry for entry in self.entries if could_run(entry)]
        self.names = unique_names(self._candidates)

    @property
    def filters_by_role(self) -> bool:
        """Whether file names decide where plugins run, by the setting ``filter_by_role``."""
        return self._settings.filter_by_role

    def filtered(self, identity: ProcessIdentity) -> ProcessIdentity:
        """Return the identity that file names are compared with, as ``filter_by_role`` says."""
        return identity if self._settings.filter_by_role else without_filter(identity)

    def select(self, identity: ProcessIdentity) -> tuple[Entry, ...]:
        """Return the entries that a process runs, ordered by path, each file once."""
        return select(self.entries, self.filtered(identity))

    def unknown_settings(self) -> list[Problem]:
        """Warn about settings of plugins that do not exist."""
        if not self._complete:
            return []
        known = {name for entry in self._candidates for name in names_of(entry)[:3]}
        return [
            Problem(
                "warning",
                f"Setting {quoted(f'{PREFIX}.plugins.{key}')} has no effect: "
                f"no plugin has this name{did_you_mean(key, sorted(known), '; ')}",
            )
            for key in self._settings.plugins
            if key not in known
        ]

    def settings_of(self, entry: Entry) -> PluginSettings:
        """Return the settings in force for an entry: those of its most specific name."""
        return self._settings.for_plugin(*names_of(entry)[:3])

    def inspect(self, entry: Entry) -> Inspection:
        """Inspect a file's permissions and its first line.

        Args:
            entry: A regular file or an installed plugin.

        Returns:
            The result, the same for each call. Never raises, except what
            ``progress`` raises.
        """
        known = self._inspected.get(entry.path)
        if known is None:
            if self._progress is not None and self._touched != entry.location:
                self._touched = entry.location
                self._progress(entry.location)
            known = self._inspected[entry.path] = self._inspect(entry)
        return known

    def _inspect(self, entry: Entry) -> Inspection:
        installed = entry.installed
        if installed is not None and installed.trouble:
            return Inspection(refused=installed.trouble)
        paths = (entry.path,) if installed is None else installed.files
        try:
            exposures = dict.fromkeys(each for path in paths for each in self._rules.check(path))
        except OSError as error:
            return Inspection(refused=f"it cannot be inspected: {error_reason(error)}")
        refusals = [exposure.text for exposure in exposures if exposure.refuse]
        if refusals and not self._settings.allow_insecure_permissions:
            text = "; ".join(refusals)
            return Inspection(
                refused=f"{text} ('{PREFIX}.allow_insecure_permissions: true' allows it)"
            )
        arguments = self.settings_of(entry).args
        if installed is None:
            command = self._interpreters.command(entry.path, arguments)
        else:
            command = self._interpreters.entry_point(installed, arguments)
        texts = tuple(exposure.text for exposure in exposures)
        return Inspection(command.argv, command.error, texts, command.warnings, command.hints)
