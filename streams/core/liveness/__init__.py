"""Which nodes of the fleet are alive: a table of one partition of `heartbeats`, exact under replay."""
