"""Demonstrations: LeRobotDataset v3 on disk, deterministic schedules, training windows, frozen features."""
