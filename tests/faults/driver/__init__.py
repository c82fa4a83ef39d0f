"""Real processes, real faults, and an oracle: one scenario for each row of the fault matrix."""
