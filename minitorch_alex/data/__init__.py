"""Images and labels: where they come from, how they are varied, how they reach the network."""

from .dataset import Dataset, Preprocessing, load
from .loader import Loader

__all__ = ["Dataset", "Loader", "Preprocessing", "load"]
