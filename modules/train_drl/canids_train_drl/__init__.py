"""Learns by deep reinforcement learning how to fuse the two detectors into one alarm, and applies what it learned."""
