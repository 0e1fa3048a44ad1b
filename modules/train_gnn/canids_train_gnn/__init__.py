"""Stage 2: the detectors (VGAE, GAT) and what they say about every window."""
