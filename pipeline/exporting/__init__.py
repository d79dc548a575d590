"""A trained run as one ONNX file, from pixels to probabilities, and the card that goes with it."""
