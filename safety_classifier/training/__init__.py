"""Training of the classifier: optimiser, step, checkpoints, loop."""
