"""The state that workers keep in Kafka, looked at and begun anew: `fleetbeat state`."""
