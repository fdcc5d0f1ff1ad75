"""Makes what the analysis found visible: one self-contained HTML page, and the same charts as files for a paper.

What comes in are the tables of `indelible.analysis`; nothing is computed here that a claim rests on.
"""
