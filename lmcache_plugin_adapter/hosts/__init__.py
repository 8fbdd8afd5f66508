"""One folder per host of plugins: the hook into it, and the identity of its processes.

Runs in vLLM's processes, in LMCache's server, or in a stand-in engine.
Imports the engine's side; touches vLLM and LMCache only where it is asked to.
"""
