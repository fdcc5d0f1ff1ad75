"""Running the graph: who does which stage run when, on this machine or on a cluster, and what has become of it.

The run folder is the only state: workers choose what is ready from its files, launchers spawn workers and watch.
May import study, data and train (torch only inside a worker, when it starts a stage); never analysis or report.
"""
