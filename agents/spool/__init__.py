"""Records on disk until Kafka has them: segments with checksums, and a journal of what was settled."""
