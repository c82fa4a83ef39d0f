"""A simulated fleet: N nodes with faults on a script publish to real Kafka and keep a ledger of all they sent."""
