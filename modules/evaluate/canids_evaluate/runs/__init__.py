"""What finished runs left behind: trainings, costs, the log of test readings."""
