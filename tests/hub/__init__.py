"""A model hub in memory on loopback, for tests that use the real Hugging Face clients."""

from .server import LoopbackHub

__all__ = ["LoopbackHub"]
