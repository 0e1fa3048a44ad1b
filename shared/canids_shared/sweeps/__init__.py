"""Sweeps over options: declaration, points and their Paramspace."""
