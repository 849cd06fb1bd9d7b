"""Memories: one file per mechanism. Each owns what is stored, how it changes and how it is shown."""
