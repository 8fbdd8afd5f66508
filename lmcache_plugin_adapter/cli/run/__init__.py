# SPDX-License-Identifier: Apache-2.0
"""`lmcache-plugins run`: run plugins under stand-in engines, without vLLM or a GPU.

Runs in the command line's process; each stand-in engine is a process of its own.
Imports what the command line may import, and the stand-in of `hosts`.
"""
