# SPDX-License-Identifier: Apache-2.0
"""The files that the locations hold, under the settings in force: selected, named, inspected."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.configuration.settings_table import PREFIX
from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.messages.wording import error_reason

from .interpreter import Interpreters
from .permissions import PermissionRules
from .program_lookup import imports_from_own_directory
from .selection import could_run, names_of, select, unique_names, without_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lmcache_plugin_adapter.configuration.settings import PluginSettings, Settings
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.linux.accounts import Account

    from .discovery import Scan
    from .entry import Entry
    from .permissions import Exposure


@frozen
class Inspection:
    """The result of the inspection of one file.

    Attributes:
        argv: The command; empty when the file is refused.
        refused: Why the file must not or cannot run and how to repair it, or None.
        exposures: Who else could change the file, where that is no reason to refuse it.
        errors: Settings that cannot be used, though the file runs.
        warnings: What runs differently than the file specifies.
        account: The user that it runs as; None for the engine's.
        checked: The paths to check again before each start.
        shares: The name of the interpreter that imports from the file's directory, or None.
        keeps_log: Whether its output goes to the log that its settings name.
        hints: What only ``check`` shows.
    """

    argv: tuple[bytes, ...] = ()
    refused: str | None = None
    exposures: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    account: Account | None = None
    hints: tuple[Problem, ...] = ()
    checked: tuple[str, ...] = ()
    shares: str | None = None
    keeps_log: bool = True


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
        path: PATH without the directories that others can write to.
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
        self._python = os.fsencode(python)
        self._rules = PermissionRules()
        self._rules_of_users: dict[int, PermissionRules] = {}
        self.path, path_problems = self._trusted(path, os.path.dirname(python))
        self._interpreters = Interpreters(python, self.path)
        self._progress = progress
        self._touched: str | None = None
        self._inspected: dict[str, Inspection] = {}
        self.entries = scanned.entries
        self.problems = (*scanned.problems, *path_problems)
        self._complete = scanned.complete
        self._candidates = [entry for entry in self.entries if could_run(entry)]
        self.names = unique_names(self._candidates)

    @property
    def filters_by_role(self) -> bool:
        """Whether file names decide where plugins run, by the setting ``filter_by_role``."""
        return self._settings.filter_by_role

    def filtered(self, identity: ProcessIdentity) -> ProcessIdentity:
        """Return the identity that file names are compared with, as ``filter_by_role`` requires."""
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
        if not self._settings.plugins:
            return self._settings.defaults
        return self._settings.for_plugin(*names_of(entry)[:3])

    def limit(self, entry: Entry, key: str) -> tuple[int, str] | None:
        """Return the value of an entry's limit and its full key, or None without a limit."""
        value = getattr(self.settings_of(entry), key)
        return None if value is None else (value, self._full_key(entry, key))

    def _full_key(self, entry: Entry, key: str) -> str:
        """Return the full key of the setting in force for an entry."""
        own = self._settings.key_for(*names_of(entry)[:3])
        if own is None:
            return f"{PREFIX}.{key}"
        value, general = (
            getattr(each, key) for each in (self.settings_of(entry), self._settings.defaults)
        )
        return f"{PREFIX}.{key}" if value == general else f"{PREFIX}.plugins.{own}.{key}"

    def _account(self, entry: Entry) -> tuple[Account | None, str | None]:
        """Return the user that an entry runs as, if not the engine's, and why it cannot."""
        settings = self.settings_of(entry)
        user, group = settings.user, settings.group
        if user is None and group is None:
            return None, None
        key, value = ("group", group) if user is None else ("user", user)
        where = f"{self._full_key(entry, key)}: {value}"
        from lmcache_plugin_adapter.linux.accounts import look_up_account  # as few need it

        try:
            account = look_up_account(user, group)
        except LookupError as error:
            return None, f"{error.args[0]} ('{where}')"
        if os.geteuid() == 0:
            return account, None
        if (account.uid, account.gid) == (os.geteuid(), os.getegid()):
            return None, None
        return None, f"'{where}' needs an engine that runs as root; it runs as the engine's user"

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
        paths = [entry.path] if installed is None else [*installed.files]
        settings = self.settings_of(entry)
        shares = None
        account, account_problem = self._account(entry)
        if account_problem is not None and os.geteuid() == 0:
            return Inspection(refused=f"{account_problem}; it must not run as root instead")
        rules = self._rules
        if account is not None:
            uid = account.uid
            rules = self._rules_of_users.setdefault(uid, PermissionRules(uid=uid))
        try:
            exposures = dict.fromkeys(each for path in paths for each in rules.check(path))
            if self._refuses(exposures):
                return _refused(exposures)
            if installed is None:
                command = self._interpreters.command(entry.path, settings.args)
                shares = imports_from_own_directory(command.argv, os.fsencode(entry.path))
                program = command.argv[0] if command.argv else self._python
                if program not in (self._python, os.fsencode(entry.path)):
                    paths.append(os.fsdecode(program))
                    found = rules.check(paths[-1])
                    exposures.update(dict.fromkeys(each for each in found if each.refuse))
            else:
                command = self._interpreters.entry_point(installed, settings.args)
            if shares is not None:
                found = rules.check_own_directory(entry.path, shares)
                exposures.update(dict.fromkeys(found))
        except OSError as error:
            return Inspection(refused=f"it cannot be inspected: {error_reason(error)}")
        if self._refuses(exposures):
            return _refused(exposures)
        texts = tuple(exposure.text for exposure in exposures)
        insecure = self._settings.allow_insecure_permissions
        log = self._log_problem(settings)
        return Inspection(
            argv=command.argv,
            refused=command.error,
            exposures=texts,
            errors=() if account_problem is None else (account_problem,),
            warnings=(*command.warnings, *filter(None, [log])),
            account=account,
            hints=(*command.hints, *_account_hints(account)),
            checked=() if insecure else tuple(paths),
            shares=None if insecure else shares,
            keeps_log=log is None,
        )

    def _refuses(self, exposures: Iterable[Exposure]) -> bool:
        return not self._settings.allow_insecure_permissions and any(
            exposure.refuse for exposure in exposures
        )

    def _log_problem(self, settings: PluginSettings) -> str | None:
        """Return why a plugin's log directory is not used, or None."""
        if settings.log is None or self._settings.allow_insecure_permissions:
            return None
        try:
            exposures = self._rules.check_directory(os.path.abspath(settings.log.directory))
        except OSError:
            return None  # the writer reports what it cannot write
        texts = [exposure.text for exposure in exposures if exposure.refuse]
        if not texts:
            return None
        return f"its output goes to the engine's log, as its log {'; '.join(texts)}"

    def _trusted(self, path: str, own: str) -> tuple[str, list[Problem]]:
        """Return PATH without the directories in which others could put a program."""
        if self._settings.allow_insecure_permissions:
            return path, []
        kept, problems = [], []
        for directory in path.split(":"):
            texts: list[str] = []
            if directory != own:
                try:
                    found = self._rules.check_directory(os.path.abspath(directory))
                    texts = [exposure.text for exposure in found if exposure.refuse]
                except OSError:
                    pass  # it cannot be entered: no program is found in it
            if texts:
                text = f"Plugins do not get {quoted(directory)} in PATH: {'; '.join(texts)}"
                problems.append(Problem("warning", text))
            else:
                kept.append(directory)
        return ":".join(kept) or os.defpath, problems


def _account_hints(account: Account | None) -> tuple[Problem, ...]:
    if account is None:
        return ()
    text = f"it runs as user {account.name!r} ({account.uid}), group {account.gid}"
    return (Problem("note", text),)


def _refused(exposures: Iterable[Exposure]) -> Inspection:
    text = "; ".join(exposure.text for exposure in exposures if exposure.refuse)
    return Inspection(refused=f"{text} ('{PREFIX}.allow_insecure_permissions: true' allows it)")
