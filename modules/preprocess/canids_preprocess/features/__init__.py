"""Features of frames, nodes, edges and windows: `relative` (the default) and `published`."""
