"""The search for plugins, in a child that a hung file system cannot turn into our trouble.

`search` runs in the supervisor, `child` in its short-lived child.
Only `child` imports `planner` and `configuration`.
"""
