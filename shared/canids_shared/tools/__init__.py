"""Chores of the project: doctor, scaffold, documentation hooks."""
