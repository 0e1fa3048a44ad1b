"""What a job needs while it runs: arguments, run folder, checkpoints, signals, locks, devices."""
