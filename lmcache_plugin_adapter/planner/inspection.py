"""Look at a selected file itself: may it run, and what runs it?"""

from __future__ import annotations

from lmcache_plugin_adapter.configuration.settings import PREFIX
from lmcache_plugin_adapter.contract.frozen import frozen

from .discovery import reason
from .interpreter import Interpreters
from .permissions import PermissionRules
from .selection import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.configuration.settings import PluginSettings, Settings
    from lmcache_plugin_adapter.messages.problem import Problem

    from .discovery import Found


@frozen
class Inspection:
    """What was learnt from looking at a file.

    Attributes:
        argv: What is executed, empty when refused.
        refused: Why it must not or cannot run and how to mend it, or None.
        findings: Who could change it, where that is no reason to refuse it.
        warnings: What runs differently than the file asks.
        hints: What only a check shows.
    """

    argv: tuple[bytes, ...] = ()
    refused: str | None = None
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hints: tuple[Problem, ...] = ()


class Inspector:
    """Inspect files, each once.

    Args:
        settings: What is in force.
        python: The interpreter that runs the engine.
        path: Where interpreters are looked up, as the PATH variable has it.
        progress: Called with a location before files of it are touched.
    """

    def __init__(
        self,
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
        self._known: dict[str, Inspection] = {}

    def settings_of(self, found: Found) -> PluginSettings:
        """Return what is in force for a file: its most specific name counts."""
        return self._settings.for_plugin(*names_of(found)[:3])

    def inspect(self, found: Found) -> Inspection:
        """Look at a file's permissions and its first line.

        Args:
            found: A regular file.

        Returns:
            What was learnt. Never raises, save what ``progress`` does.
        """
        known = self._known.get(found.path)
        if known is None:
            if self._progress is not None and self._touched != found.location:
                self._touched = found.location
                self._progress(found.location)
            known = self._known[found.path] = self._look_at(found)
        return known

    def _look_at(self, found: Found) -> Inspection:
        installed = found.installed
        if installed is not None and installed.trouble:
            return Inspection(refused=installed.trouble)
        paths = (found.path,) if installed is None else installed.files
        try:
            findings = dict.fromkeys(f for path in paths for f in self._rules.judge(path))
        except OSError as error:
            return Inspection(refused=f"it cannot be looked at: {reason(error)}")
        refusals = [finding.text for finding in findings if finding.refuse]
        if refusals and not self._settings.allow_insecure_permissions:
            text = "; ".join(refusals)
            return Inspection(
                refused=f"{text} ('{PREFIX}.allow_insecure_permissions: true' allows it)"
            )
        arguments = self.settings_of(found).args
        if installed is None:
            command = self._interpreters.command(found.path, arguments)
        else:
            command = self._interpreters.entry_point(installed, arguments)
        texts = tuple(finding.text for finding in findings)
        return Inspection(command.argv, command.error, texts, command.warnings, command.hints)
