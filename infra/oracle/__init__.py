"""Judges a run from outside: views and SQL must equal what the simulated fleet wrote down before it sent."""
