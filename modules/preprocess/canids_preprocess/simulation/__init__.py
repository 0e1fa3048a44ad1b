"""Simulated vehicles: a drive, the frames that ECUs send during it, attacks, and arbitration on the bus."""
