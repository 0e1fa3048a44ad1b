"""Frames of a capture to the windows of a split: reading, splitting by time, cutting, filling the arrays of the graph store."""
