"""Thin processors: decode, step, emit."""
