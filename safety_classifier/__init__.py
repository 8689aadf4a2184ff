"""Text in, calibrated probabilities of harm out. JAX and Flax NNX."""
