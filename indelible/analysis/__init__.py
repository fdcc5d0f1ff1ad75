"""From the files of a study run to what one may claim: table, frontiers, inference, verdicts.

What comes in are run folders (docs/run-folder.md) and the paper's values; no torch, nothing is trained here.
"""
