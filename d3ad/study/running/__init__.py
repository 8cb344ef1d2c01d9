"""What `d3ad/study/runner.py` runs notebooks with: checks before the long work, kernels, progress, clean copies."""
