"""Code that two or more stages of canids need: contracts between them, the graph store, and the helpers of the Snakefiles."""

__version__ = "0.1.0"
