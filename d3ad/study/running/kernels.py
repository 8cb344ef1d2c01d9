"""The notebooks' kernels: this interpreter, or forks of a nursery, which needn't import everything again.

In place of a forked kernel Jupyter starts a process that asks the nursery for one (`stand_in`).

    python -m d3ad.study.running.kernels FOLDER COMMAND  # run a command that finds forked ones under the name d3ad
"""
import os
import subprocess
import sys
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from d3ad.study.running import stand_in
from d3ad.study.running.nursery import QUIET, Nursery


def spec(nursery: Nursery | None = None) -> KernelSpec:
    """What Jupyter starts: a kernel that imports everything for itself, whichever "python3" is registered on this
    machine; with a nursery, one of its kernels.
    """
    if nursery is None or not nursery.runs():
        return KernelSpec(**get_kernel_dict([QUIET]))
    return KernelSpec(argv=[sys.executable, "-m", stand_in.__name__, nursery.place, "{connection_file}"],
                      language="python", display_name="Python 3")


def manager(nursery: Nursery | None = None) -> type[AsyncKernelManager]:
    """The class of kernel managers that start `spec`."""
    return type("Manager", (AsyncKernelManager,), dict(kernel_spec=spec(nursery)))


def around(folder: Path, command: list[str]) -> int:
    """Run a command that finds these kernels under the name d3ad; its exit code.

    folder: where their description is written, for JUPYTER_PATH.
    """
    with Nursery() as nursery:
        place = folder / "kernels" / "d3ad"
        place.mkdir(parents=True, exist_ok=True)
        (place / "kernel.json").write_text(spec(nursery).to_json(), encoding="utf-8")
        return subprocess.run(command, env=os.environ | dict(JUPYTER_PATH=str(folder))).returncode


if __name__ == "__main__":
    sys.exit(around(Path(sys.argv[1]), sys.argv[2:]))
