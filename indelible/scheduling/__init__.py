"""Who does what when: leases, workers, executors, the launcher.

The plan and the files of a study folder are all that passes between processes; nothing here knows what is learned.
"""
