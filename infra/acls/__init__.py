"""Which principal may do what on a cluster: what each command needs of Kafka, and nothing more."""
