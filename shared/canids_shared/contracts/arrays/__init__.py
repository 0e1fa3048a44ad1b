"""Contracts of files of arrays: what they hold, and the check of a file against it."""
