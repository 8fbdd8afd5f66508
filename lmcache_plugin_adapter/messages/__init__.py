"""The wording of messages: counts, durations, reasons, problems, "did you mean".

Runs in every process of ours.
Imports `contract` and the standard library; pure.
"""
