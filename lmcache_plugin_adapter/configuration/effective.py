# SPDX-License-Identifier: Apache-2.0
"""The effective configuration of plugins: validated settings, merged locations, problems."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.engine_settings import why_nothing_runs
from lmcache_plugin_adapter.contract.frozen import frozen

from .locations import merge_locations
from .settings import read_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from lmcache_plugin_adapter.messages.problem import Problem

    from .settings import Settings


@frozen
class Effective:
    """The effective configuration.

    Attributes:
        settings: The settings in force.
        locations: The locations in order, expanded, without duplicates.
        settings_problems: Invalid settings, which have no effect.
        location_problems: Invalid locations, which are left out.
    """

    settings: Settings
    locations: list[str]
    settings_problems: list[Problem]
    location_problems: list[Problem]

    @property
    def why_nothing_runs(self) -> Literal["disabled", "no-location"] | None:
        """Why there is nothing to run, or None if there is something."""
        return why_nothing_runs(self.settings.enabled, self.locations)


def read_effective(
    extra_config: object, locations: object, environ: Mapping[str, str]
) -> Effective:
    """Read and validate the configuration of plugins; never raises.

    Args:
        extra_config: LMCache's ``extra_config``, of any type.
        locations: LMCache's ``runtime_plugin_locations``, of any type.
        environ: The engine's environment.
    """
    settings, settings_problems = read_settings(extra_config, environ)
    merged, location_problems = merge_locations(locations, settings.locations, environ)
    return Effective(settings, merged, settings_problems, location_problems)
