"""vLLM as a host: hook, takeover from LMCache's launcher, identity, connector class.

Runs in every process of vLLM.
Imports the engine's side; vLLM and LMCache only once an LMCache connector is created.
"""
