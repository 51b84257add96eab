"""The proving ground: attacks, training and evaluation on real images. Never imported by the gateway."""
