"""What the worker and the archive answer over HTTP."""
