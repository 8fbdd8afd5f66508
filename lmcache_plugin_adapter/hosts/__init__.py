# SPDX-License-Identifier: Apache-2.0
"""One folder per host of plugins: the hook into it, and the identity of its processes.

Modules beside the folders serve several hosts (`chosen_launcher`, `upstream_names`) or take the
place of one (`standin`).

Runs in vLLM's processes, in LMCache's server, or in a stand-in engine.
Imports the engine's side; imports vLLM and LMCache only on first use.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class AfterImport:
    """Run an action as soon as the host has imported a module; a finder for ``sys.meta_path``.

    Hosts run an entry point in every process, also in those that never import the module. The
    entry point therefore imports nothing itself.

    Args:
        actions: The action for each module, by the module's name.
        on_error: Called with an exception of an action; the import goes on.
    """

    def __init__(
        self, actions: Mapping[str, Callable[[], None]], on_error: Callable[[Exception], None]
    ) -> None:
        self._actions = actions
        self._on_error = on_error

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that another finder has; the action runs once the module is loaded."""
        action = self._actions.get(name)
        if action is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                try:
                    self._act_after_loading(spec, action)
                except Exception as error:  # noqa: BLE001 - the import must go on
                    self._on_error(error)
                return spec
        return None

    def _act_after_loading(self, spec: ModuleSpec, action: Callable[[], None]) -> None:
        loader: Any = spec.loader
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            load(module)
            try:
                action()
            except Exception as error:  # noqa: BLE001 - as above
                self._on_error(error)

        loader.exec_module = exec_module  # on the instance: one loader a module
