"""A ClickHouse server for tests: HTTP over the embedded engine, to read and to write, and a network that breaks."""
