"""The contract: Avro schemas, topics, records and codecs. Sees no other room of fleetbeat."""
