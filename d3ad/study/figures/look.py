"""What all figures share: style, colours, width."""
from pathlib import Path

import matplotlib.pyplot as plt

plt.style.use(Path(__file__).with_name("d3ad.mplstyle"))
TRAIN, TEST, GOOD, BAD = "#0072B2", "#E69F00", "#009E73", "#D55E00"
WIDTH = 7.2  # inches, a page's text width
