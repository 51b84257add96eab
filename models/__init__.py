"""The wrapped classifier: loading, preprocessing, running. Imports neither `detectors` nor `app`."""
