"""python -m d3ad: see d3ad.app.cli."""
import sys

from d3ad.app.cli import main
from d3ad.speed.timing import keep_freed_memory

keep_freed_memory()
sys.exit(main())
