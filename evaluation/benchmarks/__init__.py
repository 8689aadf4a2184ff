"""Capability benchmarks by lm-evaluation-harness on the loaded models, and our evaluators as tasks of it."""
