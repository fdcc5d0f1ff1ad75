"""What to run: the study file, its grid of arms, the identity and the graph of stage runs, their cost.

Pure functions of the study file: nothing here imports torch, opens a corpus or looks at a run folder.
"""
