"""The drawn categories, seven for the profiles and one for a reader to try: what a normal picture holds, and how it can
go wrong.

A picture is a *scene*: an ordered dict of painters, each a function that paints one thing on a canvas.  A
defect edits the scene: it deletes a painter (a missing part), replaces one (a part turned round) or adds one
(a scratch).  All randomness is spent while the scene is built, so that two scenes of equal random state
differ by their edits only.

Each category has a module with `build(rng)`, its normal scene, and `DEFECTS`, its edits by name.  They share
the painters of `painting`, the surfaces of `textures` and the families of defects of `flaws`.
"""
from collections.abc import Callable

from . import biscuit, blister, board, button, gear, plank, washer, weave
from .painting import Rng, Scene

CATALOGUE: dict[str, tuple[Callable[[Rng], Scene], dict[str, Callable[[Scene, Rng], None]]]] = {
    "board": (board.build, board.DEFECTS),
    "blister": (blister.build, blister.DEFECTS),
    "biscuit": (biscuit.build, biscuit.DEFECTS),
    "washer": (washer.build, washer.DEFECTS),
    "plank": (plank.build, plank.DEFECTS),
    "weave": (weave.build, weave.DEFECTS),
    "gear": (gear.build, gear.DEFECTS),
    "button": (button.build, button.DEFECTS),
}
