"""Files: the project's own HDF5 models, and checkpoints of others."""
