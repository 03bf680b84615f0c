"""Nights of a corpus that changes."""
