"""Evaluators: one answer in, a value with evidence out."""
