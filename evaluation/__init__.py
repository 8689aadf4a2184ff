"""Checkpoints in, verdict out: runner, evaluators, statistics, outputs."""
