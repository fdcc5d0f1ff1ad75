"""The claims that are judged: those of the paper, as data, and the rules behind them.

A claim is a rule from a results table to evidence; what it comes to is decided in one place, at one level, and the
paper's own values are read by the same rules.
"""
