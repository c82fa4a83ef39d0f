"""What runs fleetbeat on a machine: local Kafka, the stack behind `fleetbeat up`, topics. Imports schemas only."""


class InfraError(Exception):
    """Something outside fleetbeat that a user can put right; the message says what was found and what to do."""
