"""Keras 3: whole models, and weights for the network of Keras Applications."""
