# SPDX-License-Identifier: Apache-2.0
"""The HTTP client that all ready plugins share: targets, credentials, deadlines and answers.

Runs in the process of a ready plugin. Imports msgspec; knows no plugin of the gallery.
"""
