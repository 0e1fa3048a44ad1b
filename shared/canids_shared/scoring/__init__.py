"""Finished runs applied to captures and buses."""
