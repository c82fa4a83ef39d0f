"""Kafka → ClickHouse: every record of the archived topics once, by plan, token and verification."""
