"""The version of this package, for every room."""

__version__ = "0.1.0"
