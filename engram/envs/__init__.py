"""Environments: a simulator behind the gymnasium interface. Nothing is learned here and torch is never imported."""
