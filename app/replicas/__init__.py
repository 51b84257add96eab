"""One gateway in many processes: an ingress that speaks HTTP and decodes, and scorers with a device each.

Knows nothing of what carries the calls between them; `deploy/ray` does.
"""
