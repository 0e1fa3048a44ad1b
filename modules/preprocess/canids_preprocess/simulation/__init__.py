"""Simulated vehicles: what a drive makes the ECUs send, what an attacker adds, and in which order the bus carries it."""
