"""What plugins print: from their pipes, through limits, to the engine's log.

Runs in the supervisor.
Imports what the supervisor may import.
"""
