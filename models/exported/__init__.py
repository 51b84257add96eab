"""The `exported` backend: a program of torch.export, made safe to open and ready to be amplified."""
