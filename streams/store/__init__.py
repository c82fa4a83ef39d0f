"""`fleetbeat store`: looking after the archive's tables from the command line."""
