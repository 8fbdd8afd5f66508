# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the adapter's launcher: the real class's signatures, and nothing starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

if TYPE_CHECKING:
    from collections.abc import Callable


class MockedLaunchers:
    """Replace the adapter's launcher by stand-ins and keep each one that is made.

    The class and its instances are autospecs of the real ones, so that a call
    that the real class would refuse raises ``TypeError``. Each stand-in has the
    attributes that the real constructor sets.

    Args:
        mocker: pytest-mock's fixture; its end restores the real class.
    """

    def __init__(self, mocker: Any) -> None:
        self._mocker = mocker
        self.made: list[Any] = []
        self.errors: dict[str, BaseException] = {}
        """The exception of each failing method, by name, in stand-ins made from now on."""
        launcher_class = mocker.create_autospec(
            RuntimePluginLauncher, side_effect=self._making(RuntimePluginLauncher)
        )
        launcher_class.for_identity.side_effect = self._making(RuntimePluginLauncher.for_identity)
        mocker.patch(f"{RuntimePluginLauncher.__module__}.RuntimePluginLauncher", launcher_class)

    def _making(self, construct: Callable[..., RuntimePluginLauncher]) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            real = construct(*args, **kwargs)
            launcher = self._mocker.create_autospec(real, instance=True)
            for name, value in vars(real).items():
                setattr(launcher, name, value)
            for method, error in self.errors.items():
                getattr(launcher, method).side_effect = error
            self.made.append(launcher)
            return launcher

        return make
