"""Evaluation of segmentation models on a prepared benchmark, one module a step."""
