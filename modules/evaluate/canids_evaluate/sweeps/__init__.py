"""Results of sweeps: points, importance, figures."""
