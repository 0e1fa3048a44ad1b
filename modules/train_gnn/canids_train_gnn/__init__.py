"""Stage 2: the detectors (VGAE, GAT) and their outputs for every window."""
