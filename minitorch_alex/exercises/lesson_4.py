"""Examines the exercises of lesson 4."""
