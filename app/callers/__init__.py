"""Who asks, how much they may ask, how much they are told, and what looks like searching for a way past."""
