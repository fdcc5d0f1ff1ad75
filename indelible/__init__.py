"""indelible: a laboratory for capabilities that survive later fine-tuning.

Rooms, from the ground up: study, theory, corpora, model, data, train, lab, analysis, report, cli.
A room may import only the rooms before it in that list.
"""

__version__ = "0.1.0"
