# SPDX-License-Identifier: Apache-2.0
"""Measures this launcher beside LMCache's own and beside process supervisors; see README.md."""
