"""Runs from files to files: quantization, training, evaluation, checkpoints, reports."""
