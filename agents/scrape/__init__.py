"""Counts that services keep themselves, read from their Prometheus exporters: discover, fetch, aggregate."""
