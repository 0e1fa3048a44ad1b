"""The two detectors: layers, models, and readers of their files; nothing in this room imports `training`."""
