"""Metrics, thresholds, intervals and comparisons of methods on one scenario."""
