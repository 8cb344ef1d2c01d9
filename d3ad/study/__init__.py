"""What the notebooks share: runs and their cache, ablations, comparison, claims, tables and figures."""
