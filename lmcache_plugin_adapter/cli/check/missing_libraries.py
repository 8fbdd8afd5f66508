# SPDX-License-Identifier: Apache-2.0
"""Find for ``check`` the libraries that a Python plugin imports and that are not installed.

Nothing of the plugin runs: its modules are parsed.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shlex
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import listed
from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.planner.installed_plugin import GALLERY_REQUIREMENT, module_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lmcache_plugin_adapter.messages.problem import Level
    from lmcache_plugin_adapter.planner.file_report import FileReport

_MOST_MODULES = 500
_MOST_BYTES = 1 << 20
_SYS_PATH = "sys.path"
_CAUGHT = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")
_GALLERY = "lmcache_plugin_adapter.gallery."
_TARGETS = "targets"
"""The folder of the gallery's modules that are imported only if the settings name them."""


def with_missing_libraries(files: Sequence[FileReport], config_json: str) -> tuple[FileReport, ...]:
    """Return the reports with a problem for each plugin that lacks libraries.

    An installed plugin cannot start without them: an error. Where the plugin may import from is
    uncertain for a file, and if ``sys.path`` or ``PYTHONPATH`` is named: a warning.
    A file that lacks nothing is returned itself.

    Args:
        files: The reports of all entries.
        config_json: LMCache's configuration, which names targets of the gallery.
    """
    reports = []
    for file in files:
        problems: list[Problem] = []
        if file.status == "runs" and file.installed is not None:
            problems = _problems(file.installed.reference, config_json)
        elif file.status == "runs" and _runs_with_this_python(file):
            problems = _problem("warning", missing_in_file(file.path), "install {} for the engine")
        reports.append(replaced(file, problems=(*problems, *file.problems)) if problems else file)
    return tuple(reports)


def _runs_with_this_python(file: FileReport) -> bool:
    program = os.fsdecode(file.command[0])
    same = os.path.dirname(program) == os.path.dirname(sys.executable)
    return same and os.path.basename(program).startswith("python")


def _problem(level: Level, libraries: Sequence[str], advice: str) -> list[Problem]:
    """Return the problem of a plugin that lacks libraries, if it lacks any."""
    if not libraries:
        return []
    if list(libraries) == ["msgspec"] and GALLERY_REQUIREMENT not in advice:
        advice = _pip("lmcache-plugin-adapter[kit]")
    are, them = ("is", "it") if len(libraries) == 1 else ("are", "them")
    why = f"which {are} not installed for the engine's Python"
    names = listed([quoted(name) for name in libraries])
    return [Problem(level, f"it needs {names}, {why}: {advice.replace('{}', them)}")]


def _pip(requirement: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(requirement)}"


def _problems(reference: str, config_json: str) -> list[Problem]:
    module = reference.partition(":")[0]
    modules = [module]
    level: Level = "error"
    advice = "install {}, or the extra of the plugin's package that brings {}"
    if module.startswith(_GALLERY):  # its plugins import their modules late
        modules += _gallery_modules(module, config_json)
        advice = _pip(GALLERY_REQUIREMENT)
    missing, certain = missing_libraries(modules)
    if not module.startswith(_GALLERY) and (not certain or '"PYTHONPATH"' in config_json):
        level = "warning"
    return _problem(level, missing, advice)


def missing_in_file(path: str) -> list[str]:
    """Return the libraries that a program imports first of all, and that are not installed."""
    beside = [os.path.dirname(path), os.path.dirname(os.path.realpath(path))]
    found = {name.partition(".")[0] for name in _imports_in(path, "")}
    return sorted(
        top
        for top in found - {""}
        if not _is_installed(top) and PathFinder.find_spec(top, beside) is None
    )


def missing_libraries(modules: Iterable[str]) -> tuple[list[str], bool]:
    """Return the libraries that modules import when they are imported, and that are not installed.

    Return also whether that is certain: no module uses ``sys.path``.

    Args:
        modules: Modules of one package; the package's other modules are followed.
    """
    waiting = list(modules)
    own = waiting[0].partition(".")[0]
    seen: set[str] = set()
    missing: set[str] = set()
    certain = True
    while waiting and len(seen) < _MOST_MODULES:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in _imports_of(module):
            top = name.partition(".")[0]
            if top == own:
                waiting.append(name)
            elif name == _SYS_PATH:
                certain = False
            elif not _is_installed(top):
                missing.add(top)
    return sorted(missing), certain


def _imports_of(module: str) -> Iterator[str]:
    """Return what importing a module imports: modules, or modules and names in them."""
    for file, _ in module_files(module, sys.path):
        is_package = os.path.basename(file) == "__init__.py"
        yield from _imports_in(file, module if is_package else module.rpartition(".")[0])


def _imports_in(file: str, package: str) -> Iterator[str]:
    """Return the same for one file.

    Args:
        file: The file.
        package: The package that its relative imports start from.
    """
    try:
        with open(file, "rb") as source:
            text = source.read(_MOST_BYTES)
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # no file, or none that Python reads
    if _SYS_PATH.encode() in text:  # it chooses where it imports from
        if not package:
            return
        yield _SYS_PATH
    for node in _certain(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                words = package.split(".")
                parent = ".".join(words[: len(words) - node.level + 1])
                base = f"{parent}.{base}".rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _certain(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Return the statements that always run, and those whose failure ends the plugin."""
    for node in body:
        if isinstance(node, ast.Try):
            if _gives_up(next(filter(_catches_import_error, node.handlers), None)):
                yield from node.body
        else:
            yield node


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or _name(one) in _CAUGHT for one in caught)


def _gives_up(handler: ast.ExceptHandler | None) -> bool:
    """Tell whether a handler raises, or calls a function such as ``kit.exit_without``."""
    return handler is not None and any(
        isinstance(node, ast.Raise)
        or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and _name(node.value.func) in ("exit", "exit_without")
        )
        for node in handler.body
    )


def _name(node: ast.expr) -> str:
    """Return the last word of a dotted name."""
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _is_installed(top: str) -> bool:
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    try:
        return importlib.util.find_spec(top) is not None  # imports nothing: it has no parent
    except (ImportError, ValueError):
        return False


def _gallery_modules(module: str, config_json: str) -> Iterator[str]:
    for file, _ in module_files(module, sys.path)[-1:]:
        top = os.path.dirname(file)
        for directory, _, names in os.walk(top):
            folder = os.path.relpath(directory, top).replace(os.sep, ".").strip(".")
            for name in names:
                stem, extension = os.path.splitext(name)
                is_target = os.path.basename(directory) == _TARGETS
                if extension == ".py" and (not is_target or f'"{stem}"' in config_json):
                    yield ".".join(filter(None, [module, folder, stem]))
