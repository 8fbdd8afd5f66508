# SPDX-License-Identifier: Apache-2.0
"""Read a plugin's own settings into a msgspec Struct and word what is wrong with them.

Runs in a plugin's process, once it reads settings. Imports msgspec and `messages`; the kit's
first import leaves it out.
"""
