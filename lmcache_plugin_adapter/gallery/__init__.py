"""The gallery: ready plugins for heartbeats, logs, metrics and alerts.

Each plugin runs in a process of its own, started by the supervisor. It may import the kit, the
contract and the libraries of the extra ``gallery``; nobody imports the gallery.
"""
