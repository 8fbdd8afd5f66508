# SPDX-License-Identifier: Apache-2.0
"""The exceptions that the kit raises."""

from __future__ import annotations


class ContextError(Exception):
    """The environment is not that of a plugin; the text names what is missing."""


class SettingsError(Exception):
    """The plugin cannot work with its settings, not even after a restart.

    Each problem has been printed in one line; the text is a summary.
    """
