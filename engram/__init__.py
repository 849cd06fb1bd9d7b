"""Engram gives robot policies a memory."""

__version__ = "0.1.0"
