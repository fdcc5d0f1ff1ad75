"""Causal language models of transformers, built from a spec or loaded from a checkpoint; dropout sites and LoRA.

Text, tokens and training do not come in here.
"""
