"""Measures a safety classifier: accuracy, calibration, robustness, fairness, speed, and functional suites."""
