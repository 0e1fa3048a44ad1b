"""Evaluation of the detectors: metrics with intervals, baselines beside the networks, tables and figures."""
