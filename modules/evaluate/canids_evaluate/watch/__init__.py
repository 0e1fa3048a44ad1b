"""Alarms on scored captures and followed buses: tracking, attribution, drift."""
