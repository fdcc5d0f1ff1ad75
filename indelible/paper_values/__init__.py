"""The values in the paper's figures, as small CSV files (README.md here says where they come from).

Nothing comes in; `indelible.claims.paper_figures` reads them.
"""
