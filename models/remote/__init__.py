"""Classifiers behind somebody else's endpoint: one call becomes few requests, and what can go wrong with a
network or a stranger's answer is told as an `UpstreamError`."""

from models.remote.classifier import RemoteClassifier, load_remote
from models.remote.connection import Connection
from models.remote.deadline import due

__all__ = ["Connection", "RemoteClassifier", "due", "load_remote"]
