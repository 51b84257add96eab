"""What is kept of traffic: decisions, and the images that somebody should look at."""

from app.recording.recording import Recording

__all__ = ["Recording"]
