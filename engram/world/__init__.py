"""Video world models: what a robot may see next, as features that a policy imagines with (MemoryVLA++, point 3)."""
