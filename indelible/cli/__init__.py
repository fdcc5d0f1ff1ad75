"""The command line: parse, call, print. Every command is a thin function over a room below.

`main.py` is the entry point; each `*_commands.py` registers its own commands.
"""
