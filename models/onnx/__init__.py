"""The `onnx` backend: a graph in ONNX Runtime, whose layers can be amplified. Needs the extra `onnx`."""
