# SPDX-License-Identifier: Apache-2.0
"""Run an installed plugin: import the module of its entry point and call the function.

The supervisor starts this file by its path with the engine's Python:
``run_entry_point.py NAME MODULE:FUNCTION DIRECTORY [ARGUMENT]...``, where ``DIRECTORY`` is the
entry of the engine's ``sys.path`` with the plugin's package. The file imports nothing of this
package, so that every loaded module is the plugin's.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NO_RESTART_CODE = 125
"""As ``contract.plugin_states.NO_RESTART_CODE``: copied, because this file imports nothing."""

_GALLERY = "lmcache_plugin_adapter.gallery."


def load(name: str, reference: str, directory: str, *arguments: str) -> Callable[[], int | None]:
    """Import the plugin and return its function; exit if a module is missing.

    Args:
        name: The plugin's name, which becomes ``sys.argv[0]``.
        reference: ``MODULE:FUNCTION``, both possibly with dots.
        directory: A directory to add to ``sys.path``.
        arguments: The plugin's arguments.
    """
    if directory not in sys.path:
        sys.path.append(directory)
    sys.argv[:] = [name, *arguments]
    module, _, function = reference.partition(":")
    try:
        __import__(module)  # not importlib, whose frames would show in every traceback
    except ModuleNotFoundError as error:
        sys.excepthook(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        print(advice(module, error.name or ""), file=sys.stderr, flush=True)
        sys.exit(NO_RESTART_CODE)
    found = sys.modules[module]
    for word in function.split("."):
        found = getattr(found, word)
    return found  # type: ignore[return-value]


def advice(module: str, missing: str) -> str:
    """Return the command that installs ``missing``, without which ``module`` cannot run."""
    pip = f"{sys.executable} -m pip"
    if f"{module}.".startswith(f"{missing}."):
        text = f"its module '{missing}' is not there: install its package again with {pip}"
    elif module.startswith(_GALLERY):
        text = f"it needs '{missing}': {pip} install 'lmcache-plugin-adapter[gallery]'"
    elif missing == "msgspec":
        text = f"it needs '{missing}': {pip} install 'lmcache-plugin-adapter[kit]'"
    else:
        text = f"it needs '{missing}'; install it, or the extra of its package that brings it: "
        text += f"{pip} install {missing.partition('.')[0]}"
    return f"<3>Cannot run the plugin: {text}"


if __name__ == "__main__":
    # Python puts this file's directory first: its modules must not shadow others.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.exit(load(*sys.argv[1:])())
