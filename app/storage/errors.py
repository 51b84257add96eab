"""What can go wrong with what is kept.

StoreError
 ├─ UnknownCalibration   no such calibration was made here
 ├─ UnknownDecision      no such decision is kept
 ├─ NumberTaken          another gateway gave a decision the same number
 └─ UnknownImage         no such image is in quarantine
"""

__all__ = ["NumberTaken", "StoreError", "UnknownCalibration", "UnknownDecision", "UnknownImage"]


class StoreError(Exception):
    """Raised where the database or folder cannot be used, or what is in it cannot be understood."""


class UnknownCalibration(StoreError):  # noqa: N818  (it names what is unknown)
    """Raised for the id of a calibration that was never made here."""


class UnknownDecision(StoreError):  # noqa: N818
    """Raised for the id of a decision that is not kept, or no longer."""


class NumberTaken(StoreError):  # noqa: N818
    """Raised where a decision is kept under the number of another: draw new ones and try again."""


class UnknownImage(StoreError):  # noqa: N818
    """Raised for the digest of an image that is not in quarantine, or no longer."""
