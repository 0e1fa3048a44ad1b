"""Parts of a running job: arguments, run folder, checkpoints, signals, locks, devices."""
