"""The science: PyTorch and numpy only. No HTTP, no settings, no storage, no image files."""
