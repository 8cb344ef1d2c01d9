"""python -m d3ad: see d3ad.cli."""
import sys

from d3ad.cli import main

sys.exit(main())
