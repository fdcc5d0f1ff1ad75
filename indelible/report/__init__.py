"""Makes what the analysis found visible: one self-contained HTML page, and the same charts as files for a paper.

What comes in are tables of `indelible.results` and verdicts of `indelible.claims`; nothing is computed here that a
claim rests on.
"""
