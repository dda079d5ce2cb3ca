"""Measurements: every figure is a ratio to a ceiling taken in the same run."""
