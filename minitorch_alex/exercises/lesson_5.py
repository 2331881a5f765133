"""Examines the exercises of lesson 5."""
