"""OpenSLO v1 as far as it is supported; the rest is refused by name, with its place."""
