"""What finished runs left behind: trainings, costs, provenance, the log of test readings."""
