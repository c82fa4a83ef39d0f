"""Keys of nodes, made of a master secret: `fleetbeat enroll`."""
