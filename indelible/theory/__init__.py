"""The two-layer linear network of the paper's section 5: simulated exactly, its theorems checked, its limits mapped.

Pure numbers in, numbers out: imports numpy and nothing of the project but `errors` and `files`. Only `page` and the charts draw.
"""
