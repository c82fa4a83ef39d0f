"""What runs on the stream: the worker, the archive and their views."""
