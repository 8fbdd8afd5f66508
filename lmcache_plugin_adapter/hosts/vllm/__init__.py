"""vLLM as a host: hook, takeover from LMCache's launcher, identity, connector class.

Runs in every process of vLLM.
Imports the engine's side; vLLM and LMCache only once an LMCache connector is created.
"""

LOGGER = "vllm.lmcache_plugin_adapter"
"""Below vLLM's logger, so that vLLM's handlers print the records."""
