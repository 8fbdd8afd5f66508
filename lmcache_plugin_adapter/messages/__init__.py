# SPDX-License-Identifier: Apache-2.0
"""The wording of messages: counts, durations, reasons, problems, "did you mean".

Runs in every process of ours.
Imports `contract` and the standard library; pure.
"""
