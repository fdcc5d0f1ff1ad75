"""The one exception that users are meant to read."""


class UserError(ValueError):
    """The request was wrong: the command prints the message, without a traceback, and exits with code 2.

    The message says what is wrong, where, what was found, the rule, and the fix, e.g.
    ``pretrain.global_batch_size = 96 cannot be split into micro_batch_size 8 on 10 devices (80); use 80 or 160.``
    """
