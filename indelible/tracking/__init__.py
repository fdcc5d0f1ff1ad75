"""Sends what stage runs have left in their folders to a tracker: TensorBoard, trackio or Weights & Biases.

Reads files; the training loop knows nothing of it. What comes in is a study folder and the name of a tracker.
"""
