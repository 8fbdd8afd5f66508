"""How plugins' processes start and die: spawn, leftovers, orphans.

Runs in the supervisor.
Imports what the supervisor may import.
"""
