"""What a study run looks like in a terminal: the live view, status, show and diff.

Everything is derived from the files of a study folder.
"""
