# SPDX-License-Identifier: Apache-2.0
"""The protocol of the configuration that a launcher takes."""

from __future__ import annotations

from typing import Protocol


class HostConfiguration(Protocol):
    """LMCache's ``LMCacheEngineConfig``, or any object with the same two names.

    The launcher also reads ``extra_config``, a mapping or None, where the object
    has it: the adapter's settings are its section ``runtime_plugins``.
    """

    @property
    def runtime_plugin_locations(self) -> object:
        """Files, directories and ``pkg:NAME``: a list, or one location as text."""

    def to_json(self) -> str:
        """Return the whole configuration as JSON text, for the plugins.

        LMCache's ``LMCacheEngineConfig.from_json`` must be able to read it where
        plugins are to use it so.
        """
