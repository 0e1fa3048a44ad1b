"""The files between stages: readers, writers and checks, and the list of detectors."""
