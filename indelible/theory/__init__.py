"""The two-layer linear network of the paper's section 5: simulated exactly, its theorems checked, its limits mapped.

Pure numbers in, numbers out: numpy, and of the project only `errors` and `files`. Only `page` and the charts draw.
"""
