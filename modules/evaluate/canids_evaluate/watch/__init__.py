"""Alarms on scored captures and followed buses: tracking, attribution to arbitration IDs, drift."""
