"""Examines the exercises of lesson 2."""
