"""`fleetbeat sql`: a prompt and a library of queries for the archive's SQL endpoint, or any ClickHouse over HTTP."""
