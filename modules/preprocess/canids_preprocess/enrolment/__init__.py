"""Enrolment of a vehicle: which of its attack-free traffic its profile is learnt from, and what the profile says of captures."""
