"""Inference over seeds, comparison of arms, frontiers, sequential designs: numbers in, numbers out.

The unit is the seed, and one estimator decides. What the numbers mean is said in `indelible.claims`.
"""
