"""The version of this package, for every room."""

__version__ = "0.1.0"

VERSION_DIFFERS_CODE = 93
"""Exit code of a bootstrap whose engine runs another version of this package."""
