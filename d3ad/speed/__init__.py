"""How fast it computes: presets, fast convolutions, the benchmark."""
