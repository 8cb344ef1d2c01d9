"""What Jupyter takes for a kernel: a small process that asks the nursery (`nursery`) for one, passes signals on, and
ends when the kernel ends, as the kernel does when this ends.

    python -m d3ad.study.running.stand_in SOCKET CONNECTION     # started by Jupyter

A file of its own, since each notebook starts it: it imports nothing that takes time.
"""
import json
import os
import signal
import socket
import sys


def ask(place: str, *arguments: str) -> None:
    """Ask the nursery for a kernel and stay until it ends."""
    kernel = socket.socket(socket.AF_UNIX)
    order = dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
    with kernel.makefile("r") as said:
        try:
            kernel.connect(place)
            kernel.sendall(json.dumps(order).encode() + b"\n")
            answer = said.readline()
        except OSError:
            answer = ""
        if not answer:
            sys.exit("the process that kernels are forked from has ended; is the memory full?")
        number = int(answer)
        for passed in (signal.SIGINT, signal.SIGTERM):
            signal.signal(passed, lambda which, frame: os.kill(number, which))
        said.read()  # to its end


if __name__ == "__main__":
    ask(*sys.argv[1:])
