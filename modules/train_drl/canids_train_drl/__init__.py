"""Learns by deep reinforcement learning how to fuse detectors into one alarm, and applies what it learned."""
