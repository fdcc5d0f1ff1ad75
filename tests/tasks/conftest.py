"""Fixtures of the tests of tasks."""

from task_files import any_lm_eval

__all__ = ["any_lm_eval"]
