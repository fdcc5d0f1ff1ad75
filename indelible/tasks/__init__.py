"""Tasks: accuracies of checkpoints by lm-eval, on its own tasks and on the user's.

A task file of the user's is read, checked and written out as examples (`task_file`, `examples`); of lm-eval's own tasks
only the names are looked up (`own_tasks`). `harness` alone imports lm_eval, and only the evaluation that needs it calls
it.
"""
