"""What both training rules share: the loop, its losses, and the files of a run."""
