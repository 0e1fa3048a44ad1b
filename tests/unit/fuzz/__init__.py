"""Mutated files of every kind, read by the functions through which entry points read them (`python -m fuzz.campaign --help`)."""
