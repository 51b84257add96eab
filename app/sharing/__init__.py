"""What gateways that share a database tell each other of their traffic."""
