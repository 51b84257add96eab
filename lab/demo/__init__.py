"""`make demo`: real digits, benign and triggered, through a real gateway over HTTP."""
