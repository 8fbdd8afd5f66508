"""The exceptions that the kit raises."""

from __future__ import annotations


class ContextError(Exception):
    """The environment is not that of a plugin; the text says what is missing."""


class SettingsError(Exception):
    """The plugin cannot work with its settings, and could not after a restart either.

    What is wrong has been printed, one line each; the text sums it up.
    """
