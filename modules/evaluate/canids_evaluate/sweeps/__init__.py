"""Results of sweeps: points, Optuna's study of them, figures."""
