"""Inputs by kind (images, depth, voxels): read, checked, fitted and shown alike in training and on the line."""
