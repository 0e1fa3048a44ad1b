"""Stage 1: from captures of a CAN bus to graphs of windows."""
