"""Results of a study run: losses long and wide, curves, tables joined.

Reads files; trains and judges nothing. What comes in is a study folder or a table that was written from one.
"""
