"""What commands and notebooks call: plan a study, prepare its tokens, run it, read it.

The library's names (`indelible.__init__`) are functions of this room. Nothing here prints or ends a process: what is
wrong with a request is a `UserError`.
"""
