"""Pretrained networks: their taps, their weights, where these come from."""
