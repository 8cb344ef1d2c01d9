"""python -m d3ad: see d3ad.cli."""
import sys

from d3ad.cli import main
from d3ad.speed import keep_freed_memory

keep_freed_memory()
sys.exit(main())
