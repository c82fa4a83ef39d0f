"""The files of --config: one definition each is what may stand there, the defaults, the messages and the reference."""
