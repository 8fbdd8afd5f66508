# SPDX-License-Identifier: Apache-2.0
"""The file-name grammar of plugins: ``<ROLE>[_<WORKER_ID>][_<DESCRIPTION>].<EXTENSION>``.

Pure: the module does not touch the file system.
"""

from __future__ import annotations

import functools
import os.path
import re

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.contract.identity import ALL_ROLES, ROLE_WORDS, Role
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.messages.problem import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

    NotAPluginKind = Literal["hidden", "private", "leftover", "data", "near-miss", "no-role"]

LMCACHE_EXTENSIONS = (".py", ".sh")
"""The only extensions that LMCache's own launcher runs, in lower case."""

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
SEPARATORS = "-. +=:@#"
"""Characters that are often written in place of the ``_`` between the parts of a name."""

_SEPARATORS = re.compile(f"[{re.escape(SEPARATORS)}]+")
_OTHER_ID = re.compile(r"^[0-9]+(?:_|$)")


@frozen
class PluginName:
    """The parsed name of a plugin file.

    Attributes:
        stem: The file name without its extension.
        role: One of :data:`ROLE_WORDS`.
        worker_id: The only worker that runs the plugin, or None for every worker.
        description: The rest of the stem, possibly empty.
        extension: With its dot, possibly empty.
    """

    stem: str
    role: str
    worker_id: int | None
    description: str
    extension: str = ""

    @property
    def never_runs(self) -> bool:
        """Whether no process can match: a scheduler's id is -1, a server's is 0."""
        if self.role == Role.SERVER.value:
            return bool(self.worker_id)
        return self.role == Role.SCHEDULER.value and self.worker_id is not None

    def describe(self) -> str:
        """Return where the plugin runs in words, such as ``worker 0`` or ``every worker``."""
        if self.never_runs:
            return "nowhere"
        if self.worker_id is not None and self.role != Role.SERVER.value:
            return f"worker {self.worker_id}"
        return {"worker": "every worker", ALL_ROLES: "every process"}.get(self.role, self.role)


@frozen
class NotAPlugin:
    """The parsed name of a file that is not a plugin.

    Attributes:
        stem: The file name without its extension.
        kind: ``hidden`` and ``private`` names start with ``.`` and ``_``;
            ``leftover`` files come from editors and package managers; ``data``
            is documentation or data; a ``near-miss`` almost names a role;
            ``no-role`` is any other name.
        reason: The kind in words, for a line that starts with the file.
        suggestion: The file name that would make the file a plugin.
        runs_in_lmcache: LMCache's own launcher would run the file: a single word
            with ``.py`` or ``.sh`` passes its filter.
    """

    stem: str
    kind: NotAPluginKind
    reason: str
    suggestion: str | None = None
    runs_in_lmcache: bool = False


def parse_name(
    file_name: str, *, executable: bool = False, is_location: bool = False
) -> PluginName | NotAPlugin:
    """Parse a file name.

    Args:
        file_name: The last part of the path, extension included.
        executable: The file has an exec bit, so it is a program even if its
            extension is one of documentation or data.
        is_location: The configuration names this file, so a leading ``.`` or
            ``_`` does not hide it.

    Returns:
        The parsed name. Never raises.
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
    """Return whether a process runs a plugin of this name.

    Ids are compared as numbers. An id after ``all`` is a worker's id. No id
    matches a scheduler, whose own id is -1. A process without a role runs
    every plugin.
    """
    role = identity.role
    if role is None:
        return True
    if name.role not in (ALL_ROLES, role.value):
        return False
    if name.worker_id is None:
        return True
    if role is Role.SCHEDULER or (name.role == ALL_ROLES and role is not Role.WORKER):
        return False
    return name.worker_id == identity.worker_id


def id_note(name: PluginName) -> str | None:
    """Return which name to use if a description starts with a number that is probably an id."""
    number, separator, _ = _SEPARATORS.sub("_", name.description).partition("_")
    if name.worker_id is not None or not separator or not number.isdecimal():
        return None
    if name.role in (Role.SCHEDULER.value, Role.SERVER.value):
        return None
    right = f"{name.role}_{_SEPARATORS.sub('_', name.description)}{name.extension}"
    return f"it runs on {name.describe()}; for worker {number} only, name it {quoted(right)}"


def name_warning(name: PluginName, identities: Sequence[ProcessIdentity]) -> str | None:
    """Return why a plugin's name keeps it from running in any process.

    Args:
        name: The plugin's name.
        identities: The processes; their ``worker_count`` limits the ids.

    Returns:
        What is wrong and how to repair it, for a line that starts with the
        file, or None if a process can have the id.
    """
    if name.worker_id is None:
        return None
    roles = {one.role for one in identities}
    if roles == {Role.SERVER} and name.role != Role.SERVER.value:
        return None  # another name with this role does not run there either
    if name.never_runs:
        right = "_".join(filter(None, (name.role, name.description))) + name.extension
        why = (
            "a scheduler has no worker id"
            if name.role == Role.SCHEDULER.value
            else "a server's only id is 0"
        )
        return f"{why}, so it never runs: name it {quoted(right)}"
    counts = [one.worker_count for one in identities if one.role is not Role.SERVER]
    if name.role == Role.SERVER.value or not counts or name.worker_id < max(counts):
        return None
    last = max(counts) - 1
    return (
        f"no worker has the id {name.worker_id}, so it never runs: ids go from 0 to {last}"
        if last > 0
        else f"no worker has the id {name.worker_id}, so it never runs: the only id is 0"
    )


def name_advice(name: NotAPlugin, *, installed: bool = False, role: str = ALL_ROLES) -> str:
    """Return why a file is not a plugin, and which name would make it one.

    Args:
        name: Its name.
        installed: It is an installed plugin.
        role: The role to suggest where the name has none.
    """
    if name.suggestion is None:
        return name.reason
    right = quoted(name.suggestion)
    if installed:
        return f"{name.reason}; its package should name it {right}"
    if name.kind != "no-role":
        return f"{name.reason}; name it {right}"
    rest = name.suggestion.removeprefix(ALL_ROLES)
    text = f"{name.reason}; if it is a plugin, name it {quoted(role + rest)}"
    if name.runs_in_lmcache:
        text += f", otherwise {quoted(rest)} (LMCache's own launcher would run it)"
    return text


def _without_role(stem: str, extension: str, words: list[str]) -> NotAPlugin:
    """Return the parsed name of a file without a role, with a suggestion."""
    if words[0] == "":
        return NotAPlugin(stem, "private", "its name starts with '_'")
    in_lmcache = len(words) == 1 and extension in LMCACHE_EXTENSIONS
    meant = _meant(words[0])
    if meant is None:
        return NotAPlugin(
            stem,
            "no-role",
            "its name starts with no role (scheduler, worker, all or server)",
            f"{ALL_ROLES}_{stem.lstrip('.')}{extension}",
            in_lmcache,
        )
    role, rest = meant
    rest = _SEPARATORS.sub("_", "_".join(filter(None, [rest, *words[1:]])))
    if role in (Role.SCHEDULER.value, Role.SERVER.value):
        rest = _OTHER_ID.sub("", rest)
    right = "_".join(filter(None, [role, rest])) + extension
    return NotAPlugin(
        stem,
        "near-miss",
        f"its name starts with {quoted(words[0])}, which is no role",
        right,
        in_lmcache,
    )


@functools.lru_cache(maxsize=1024)
def _meant(word: str) -> tuple[str, str] | None:
    """Return the role that a word almost names, and the rest of the word.

    ``worker0``, ``worker-0`` and ``all.v2`` are a role and a rest; ``woker`` is a
    typing error; ``woker-0`` is both.
    """
    letters = _LETTERS.match(word)
    head = letters.group() if letters else ""
    rest = word[len(head) :].lstrip(SEPARATORS)
    role: str | None = _role(head)
    if role is None:
        role = near_miss(word, ROLE_WORDS)
        if role is not None:
            return role, ""
        role = near_miss(head, ROLE_WORDS)
    if role is None:
        return None
    return role, rest


def _role(word: str) -> str | None:
    lowered = word.lower()
    return lowered if lowered in ROLE_WORDS else None


def _worker_id(word: str) -> int | None:
    """Return an id; an id larger than any worker's stays larger, but is not exact."""
    if not (word.isascii() and word.isdigit()):
        return None
    return int(word[-_ID_DIGITS:]) if len(word.lstrip("0")) <= _ID_DIGITS else 10**_ID_DIGITS


_ID_DIGITS = 18


def _is_lock(file_name: str) -> bool:
    """Return whether this is an autosave file of Emacs (``#name#``)."""
    return len(file_name) > 2 and file_name.startswith("#") and file_name.endswith("#")
