"""What an agent is installed from where there is no Python: an archive with everything in it, and a .deb of that."""
