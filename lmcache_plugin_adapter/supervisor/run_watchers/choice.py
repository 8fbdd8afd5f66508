# SPDX-License-Identifier: Apache-2.0
"""Choose what watches the runs of a plugin, as its settings request."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Signals

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin
    from lmcache_plugin_adapter.linux.event_loop import Loop
    from lmcache_plugin_adapter.supervisor.services import Services

    from .notifications import Notifications
    from .run_timeout import RunTimeout


def timeout_of(
    planned: PlannedPlugin, loop: Loop, fail: Callable[[str], None]
) -> RunTimeout | None:
    """Return what limits the duration of a plugin's runs, if its settings request that.

    Args:
        planned: The plugin as planned.
        loop: The supervisor's loop.
        fail: Ends the run as a failure, with the cause.
    """
    if planned.timeout is None:
        return None
    from .run_timeout import RunTimeout

    return RunTimeout(loop, planned.timeout, fail)


def notifications_of(
    planned: PlannedPlugin,
    services: Services,
    name: str,
    fail: Callable[[str, Signals], None],
    changed: Callable[[], None],
) -> Notifications | None:
    """Return what receives a plugin's notifications, if its settings request that.

    Args:
        planned: The plugin as planned.
        services: What the plugins of one supervisor share.
        name: The plugin's name.
        fail: Ends the run as a failure, with the cause and the first signal.
        changed: Called when the plugin has become ready, or not ready.
    """
    if not planned.notify:
        return None
    from .notifications import Notifications

    return Notifications(services, name, planned, fail, changed)
