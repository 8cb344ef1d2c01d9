"""Files, checkpoints, processes: what any research code needs, and the paper doesn't speak of."""
