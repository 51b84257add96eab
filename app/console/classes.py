"""What people call a class."""

from models.base import ClassifierInfo

__all__ = ["class_name"]


def class_name(info: ClassifierInfo, label: int) -> str:
    """`7`, or `7 (stop)` where the bundle names classes otherwise. Decisions may be older than the model
    that is served: a label that it does not have is a number."""
    if info.labels is None or not 0 <= label < len(info.labels) or info.labels[label] == str(label):
        return str(label)
    return f"{label} ({info.labels[label]})"
