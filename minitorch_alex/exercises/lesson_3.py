"""Examines the exercises of lesson 3."""
