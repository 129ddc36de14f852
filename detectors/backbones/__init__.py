"""Pretrained networks: their feature maps, their weights, and the hubs that these come from."""
