"""A process that imports once what notebooks need, of which each of their kernels is a fork, where the system can fork.

A kernel that imports torch, diffusers and the rest takes 7 seconds of a core before its notebook begins.  When the
nursery's parent ends, the nursery and the kernels end, too.

    python -m d3ad.study.running.nursery LISTENER       # started by `Nursery`, with a socket's number

This file imports nothing that takes time, so that the nursery begins before its parent has imported Jupyter.
"""
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

IMPORTED = ("ipykernel.ipkernel", "ipykernel.kernelapp", "d3ad.infra.backbones", "d3ad.study.ablations",
            "d3ad.study.comparison", "d3ad.study.figures", "d3ad.study.provenance", "d3ad.study.workspace")
# environment of kernels and their workers.  For glibc: freed blocks of up to 32 MB are kept, since fresh pages take a
# few percent of what small networks compute; the larger blocks of large networks go back to the system.  For NumPy: one
# thread, since its matrices are small here, and threads that wait for each other take the core of the notebook beside
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2 ** 20), "MALLOC_TRIM_THRESHOLD_": str(2 ** 31 - 1),
               "OPENBLAS_NUM_THREADS": "1"}
QUIET = "--log-level=50"  # a kernel's log holds nothing for a reader


def can_fork() -> bool:
    """Whether a process that has imported torch may fork: on Linux, without a GPU's driver, which no fork survives."""
    return sys.platform == "linux" and not any(Path(f"/dev/{name}").exists() for name in ("nvidiactl", "kfd", "dxg"))


class Nursery:
    """A context with a nursery.  `place` is the path of the socket where it is asked for kernels (`stand_in`); None
    where there can't be one.
    """

    def __enter__(self):
        self.place = None
        if not can_fork() or len(os.fsencode(gettempdir())) > 80:  # a socket's path holds 107 bytes
            return self
        self.folder = TemporaryDirectory(prefix="d3ad-")
        self.place = os.path.join(self.folder.name, "kernels")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.place)
            listener.listen()
            # the pipe to its stdin closes when we end; Ctrl-C is for us, not for it
            self.process = subprocess.Popen([sys.executable, "-m", __name__, str(listener.fileno())],
                                            stdin=subprocess.PIPE, pass_fds=[listener.fileno()], start_new_session=True,
                                            env=os.environ | ENVIRONMENT)
        return self

    def runs(self) -> bool:
        """Whether it can be asked for kernels: it is there, and has not failed."""
        return self.place is not None and self.process.poll() is None

    def __exit__(self, *error):
        if self.place:
            self.process.kill()
            self.process.communicate()
            self.folder.cleanup()


def serve(listener: socket.socket) -> None:
    """Import what notebooks import, then fork a kernel for each that asks; only a kernel returns from here."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended kernels leave nothing to wait for
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # read at ipykernel's import: a kernel ends with this process
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # read at matplotlib's: a kernel's own
    import_everything()
    gc.collect()
    gc.freeze()  # no kernel's collection walks through all that was imported
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # OpenBLAS's threads
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:  # at its end, our parent has ended
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return become_kernel(client)
        client.close()
    os._exit(0)


def import_everything() -> None:
    """What the notebooks and a kernel import, before anything of it has run."""
    for name in IMPORTED:
        importlib.import_module(name)


def become_kernel(client: socket.socket) -> None:
    """Run a kernel as `client` asks, until it ends; it ends with `client`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    with client.makefile("r") as asked:
        order = json.loads(asked.readline())
    own = {name: os.environ[name] for name in ("JPY_PARENT_PID", "MPLBACKEND")}
    os.environ.clear()
    os.environ.update(order["environment"] | own)
    os.chdir(order["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    client.sendall(f"{os.getpid()}\n".encode())

    def watch() -> None:
        client.recv(1)  # nothing ever comes: the other end was closed
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    from ipykernel.kernelapp import IPKernelApp
    IPKernelApp.launch_instance(["-f", *order["arguments"], QUIET])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
