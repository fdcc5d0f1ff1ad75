"""How fast this machine is: the benchmark of a worker, and the speeds that were kept.

Nothing else is kept of a machine.
"""
