"""The command line: parse, call, print. Every command is a thin function over `indelible.workflow` and the rooms below.

`main.py` is the entry point; each `*_commands.py` registers its own commands. They import what is slow (torch, polars,
charts) only when a command is called, so that `indelible --help` answers at once.
"""
