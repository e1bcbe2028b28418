"""Measuring artifacts on images: how often they are right, and their features."""
