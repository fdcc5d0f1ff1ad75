"""Ways to keep worker processes alive: on this machine (local) or in Slurm jobs (slurm).

An executor only starts, replaces and stops workers; what they work on they choose themselves from the run folder.
"""
