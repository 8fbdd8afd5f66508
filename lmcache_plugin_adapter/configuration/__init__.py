"""The settings: their table, their validation, their reference page; the locations.

Runs in a short-lived child of the supervisor and in the command line.
Imports `messages`, `contract` and `linux`; the standard library only.
"""
