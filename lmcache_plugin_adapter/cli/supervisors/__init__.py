"""The client side of supervisors' control sockets: find them, ask them, measure them.

Runs in the command line's process.
Imports what the command line may import.
"""
