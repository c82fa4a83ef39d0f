"""Probes: each asks one question about a service or this host and answers within a deadline."""
