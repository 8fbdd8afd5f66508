"""What can be wrong with what a plugin was given."""

from __future__ import annotations


class ContextError(Exception):
    """The environment is not that of a plugin; the text says what is missing."""


class SettingsError(Exception):
    """The plugin cannot work with its settings, and could not after a restart either.

    What is wrong has been printed, one line each; the text sums it up.
    """


NOT_AGAIN = 125
"""The exit code by which a plugin says "do not restart me"."""
