# SPDX-License-Identifier: Apache-2.0
"""Measure an engine process: memory, CPU, descriptors, GPU, cause of death.

Runs in the alert reporter's process, in its main thread. Imports psutil, pynvml if it is
installed, and `linux`.
"""
