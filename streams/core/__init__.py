"""Pure stream logic: numbers in, numbers out; time is a value; no I/O."""
