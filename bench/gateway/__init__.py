"""What guarding costs the caller: servers side by side on loopback, under open-loop load."""
