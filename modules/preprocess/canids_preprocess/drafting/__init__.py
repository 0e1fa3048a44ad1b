"""Drafting a manifest: what a capture is, and what has to be checked."""
