"""Faust made fast: batches instead of messages, own commit offsets, state pages."""
