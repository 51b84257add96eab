"""How many replicas does a rate take? Measured service times, and a simulation of the batcher."""
