# SPDX-License-Identifier: Apache-2.0
"""The values that an engine process reads of its host's configuration.

An engine process reads the few values that it needs before a launch, without
validation: here ``enabled`` and ``locations``, in `hosts` ``data_parallel``, in the
launcher ``metrics``. The planning child reads and validates all settings.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

SETTINGS_KEY = "runtime_plugins"
"""The key of the settings in ``extra_config``."""


def settings_section(extra_config: object) -> Mapping[str, Any]:
    """Return the section of the settings, or an empty mapping.

    Args:
        extra_config: LMCache's ``extra_config``, of any type.
    """
    section = extra_config.get(SETTINGS_KEY) if isinstance(extra_config, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def why_nothing_runs(
    enabled: object, locations: object
) -> Literal["disabled", "no-location"] | None:
    """Return why there is nothing to run, or None if there is something.

    Every host, command and the launcher decide by this rule.

    Args:
        enabled: The setting ``enabled``.
        locations: All locations, of any type.
    """
    if enabled is False:
        return "disabled"
    return None if locations else "no-location"


def why_engine_runs_nothing(
    extra_config: object, locations: object
) -> Literal["disabled", "no-location"] | None:
    """Return why an engine has nothing to run, going by values that are not validated.

    Args:
        extra_config: LMCache's ``extra_config``, of any type.
        locations: LMCache's ``runtime_plugin_locations``, of any type.
    """
    section = settings_section(extra_config)
    return why_nothing_runs(section.get("enabled"), locations or section.get("locations"))
