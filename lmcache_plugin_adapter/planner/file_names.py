"""The file-name grammar of plugins: ``<ROLE>[_<WORKER_ID>][_<DESCRIPTION>].<EXTENSION>``.

Pure: nothing here touches the file system.
"""

from __future__ import annotations

import functools
import os.path
import re

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.messages.problem import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

    RoleWord = Literal["scheduler", "worker", "all", "server"]
    NotAPluginKind = Literal["hidden", "private", "leftover", "data", "near-miss", "no-role"]

ROLE_WORDS: tuple[RoleWord, ...] = ("scheduler", "worker", "all", "server")
"""The first word of a plugin's name. ``all`` is every role."""

LMCACHE_EXTENSIONS = (".py", ".sh")
"""The only endings that LMCache's own launcher runs (in this case)."""

_LEFTOVER_ENDINGS = """
    .bak .backup .old .orig .save .rej .tmp .temp .part .disabled .off .swo .swp .swx .pyc .pyo
    .rpmnew .rpmorig .rpmsave .dpkg-dist .dpkg-new .dpkg-old .dpkg-tmp .ucf-dist .ucf-old
"""
_DATA_ENDINGS = """
    .md .markdown .rst .adoc .txt .text .log .html .htm .css .pdf .png .jpg .jpeg .gif .svg .ico
    .json .jsonl .json5 .yaml .yml .toml .ini .cfg .conf .cnf .config .properties .env .xml .csv
    .tsv .sql .db .sqlite .sqlite3 .parquet .npy .npz .pt .safetensors .proto .j2 .jinja .tmpl
    .template .in .service .socket .timer .crt .cert .pem .key .sig .asc .sha256 .md5 .lock .pid
    .patch .diff .pyi .pth .whl .zip .tar .gz .tgz .bz2 .xz .zst
"""
_LEFTOVERS = frozenset(_LEFTOVER_ENDINGS.split())
_DATA = frozenset(_DATA_ENDINGS.split())
_LETTERS = re.compile(r"[A-Za-z]+")


@frozen
class PluginName:
    """What the name of a plugin file says.

    Attributes:
        stem: The file name without its extension.
        role: Where it runs: one role, or ``all`` of them.
        worker_id: The only worker it runs on, or None for every one.
        description: What follows role and id, possibly empty.
        extension: With its dot, possibly empty.
    """

    stem: str
    role: RoleWord
    worker_id: int | None
    description: str
    extension: str = ""

    @property
    def never_runs(self) -> bool:
        """Whether no process can match: a scheduler has no id (it is told -1), a server is 0."""
        if self.role == Role.SERVER.value:
            return bool(self.worker_id)
        return self.role == Role.SCHEDULER.value and self.worker_id is not None

    def describe(self) -> str:
        """Say in words where it runs: ``scheduler``, ``worker 0``, ``every worker`` and so on."""
        if self.never_runs:
            return "nowhere"
        if self.worker_id is not None and self.role != Role.SERVER.value:
            return f"worker {self.worker_id}"
        return {"worker": "every worker", "all": "every process"}.get(self.role, self.role)


@frozen
class NotAPlugin:
    """Why a file is not a plugin by its name.

    Attributes:
        stem: The file name without its extension.
        kind: ``hidden`` and ``private`` start with ``.`` and ``_``;
            ``leftover`` is what editors and package managers leave behind;
            ``data`` is documentation or data; ``near-miss`` almost names a
            role; ``no-role`` is anything else.
        reason: The same in words, for a line that starts with the file.
        suggestion: The file name that would make it a plugin.
        runs_in_lmcache: LMCache's own launcher would have run it: one word
            ending in ``.py`` or ``.sh`` escapes its filter.
    """

    stem: str
    kind: NotAPluginKind
    reason: str
    suggestion: str | None = None
    runs_in_lmcache: bool = False


def parse_name(
    file_name: str, *, executable: bool = False, is_location: bool = False
) -> PluginName | NotAPlugin:
    """Read a file name by the grammar.

    Args:
        file_name: The last part of the path as reached, extension included.
        executable: The file has an exec bit, which makes a program of what
            looks like documentation or data.
        is_location: The file is itself a location, so somebody chose it by
            name: the rules for a leading ``.`` or ``_`` do not apply to it.

    Returns:
        What the name says, or why it is no plugin's name. Never raises.
    """
    stem, extension = os.path.splitext(file_name)
    if is_location and file_name[:1] in {".", "_"}:
        parsed = parse_name(file_name.lstrip("._"), executable=executable)
        if isinstance(parsed, PluginName):
            return parsed
    elif file_name.startswith("."):
        return NotAPlugin(stem, "hidden", "its name starts with '.'")
    lowered = extension.lower()
    if file_name.endswith("~") or lowered in _LEFTOVERS or _is_lock(file_name):
        return NotAPlugin(stem, "leftover", "it is an editor's or package manager's leftover")
    if lowered in _DATA and not executable:
        return NotAPlugin(
            stem, "data", f"{quoted(lowered)} is documentation or data (unless executable)"
        )
    words = stem.split("_")
    role = _role(words[0])
    if role is None:
        return _without_role(stem, extension, words)
    worker_id = _worker_id(words[1]) if len(words) > 1 else None
    return PluginName(
        stem, role, worker_id, "_".join(words[1 if worker_id is None else 2 :]), extension
    )


def runs_on(name: PluginName, identity: ProcessIdentity) -> bool:
    """Tell whether a plugin of this name runs in a process.

    Ids are compared as numbers. An id after ``all`` is a worker's. On a
    scheduler no id matches, as its own is -1.

    Args:
        name: The plugin.
        identity: The process. Without a role there is no filtering: all run.

    Returns:
        True if it runs there.
    """
    role = identity.role
    if role is None:
        return True
    if name.role not in ("all", role.value):
        return False
    if name.worker_id is None:
        return True
    if role is Role.SCHEDULER or (name.role == "all" and role is not Role.WORKER):
        return False
    return name.worker_id == identity.worker_id


def name_warning(name: PluginName, fleet: Iterable[ProcessIdentity]) -> str | None:
    """Say why a plugin's name keeps it from running in any process of a whole fleet.

    Args:
        name: The plugin.
        fleet: The processes; their ``worker_count`` tells which ids exist.

    Returns:
        What is wrong and how to mend it, for a line that starts with the
        file, or None when the id is one that a process can have.
    """
    if name.worker_id is None:
        return None
    if name.never_runs:
        right = "_".join(filter(None, (name.role, name.description))) + name.extension
        why = (
            "a scheduler has no worker id"
            if name.role == Role.SCHEDULER.value
            else "a server's only id is 0"
        )
        return f"{why}, so it never runs: name it {quoted(right)}"
    counts = [one.worker_count for one in fleet if one.role is not Role.SERVER]
    if name.role == Role.SERVER.value or not counts or name.worker_id < max(counts):
        return None
    last = max(counts) - 1
    return (
        f"no worker has the id {name.worker_id}, so it never runs: ids go from 0 to {last}"
        if last > 0
        else f"no worker has the id {name.worker_id}, so it never runs: the only id is 0"
    )


def _without_role(stem: str, extension: str, words: list[str]) -> NotAPlugin:
    """Say what a file without a role is and which name would give it one."""
    if words[0] == "":
        return NotAPlugin(stem, "private", "its name starts with '_'")
    in_lmcache = len(words) == 1 and extension in LMCACHE_EXTENSIONS
    meant = _meant(words[0])
    if meant is None:
        return NotAPlugin(
            stem,
            "no-role",
            "its name starts with no role (scheduler, worker, all or server)",
            f"all_{stem.lstrip('.')}{extension}",
            in_lmcache,
        )
    role, rest = meant
    right = "_".join([role, *([rest] if rest else []), *words[1:]]) + extension
    return NotAPlugin(
        stem,
        "near-miss",
        f"its name starts with {quoted(words[0])}, which is no role",
        right,
        in_lmcache,
    )


@functools.lru_cache(maxsize=1024)
def _meant(word: str) -> tuple[str, str] | None:
    """Return the role that a word almost is, and what is left of the word after it.

    ``worker0``, ``worker-0`` and ``all.v2`` hold a role and something behind it;
    ``woker`` is a slip; ``woker-0`` is both.
    """
    letters = _LETTERS.match(word)
    head = letters.group() if letters else ""
    rest = word[len(head) :].lstrip("-. +=:@#")
    role: str | None = _role(head)
    if role is None:
        role = near_miss(word, ROLE_WORDS)
        if role is not None:
            return role, ""
        role = near_miss(head, ROLE_WORDS)
    if role is None:
        return None
    return role, "" if role == Role.SCHEDULER.value and rest.isdigit() else rest


def _role(word: str) -> RoleWord | None:
    lowered = word.lower()
    return next((role for role in ROLE_WORDS if role == lowered), None)


def _worker_id(word: str) -> int | None:
    """Read an id; ids beyond any worker's stay beyond without being exact."""
    if not (word.isascii() and word.isdigit()):
        return None
    return int(word[-_ID_DIGITS:]) if len(word.lstrip("0")) <= _ID_DIGITS else 10**_ID_DIGITS


_ID_DIGITS = 18


def _is_lock(file_name: str) -> bool:
    """Tell Emacs' autosave files (``#name#``) from others."""
    return len(file_name) > 2 and file_name.startswith("#") and file_name.endswith("#")
