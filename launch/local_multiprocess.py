"""Starts several processes of one run on this machine.

    python launch/local_multiprocess.py --num_processes=2 --devices=4 -- \\
        python -m clustering_jax.main --config=configs/cc_digits.py --workdir=runs/two

Each process runs the command with --coordinator=localhost:PORT --num_processes=N --process_id=I added. Its lines of
output start with [I]. SIGTERM and SIGINT are forwarded to all processes. If one process fails, the others are ended at
once. If it ends with 75 (interrupted and saved), the others first have --grace seconds to save and to end by
themselves. The exit code is the first one that is not 0.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import BinaryIO, NoReturn

SAVED = 75
_writing = threading.Lock()  # so that each line is written as a whole


def main(argv: list[str]) -> int:
    """Runs the command of `argv` in several processes and returns the exit code."""
    options, command = _options(argv)
    port = options.port or _free_port()
    flags = [f"--coordinator=localhost:{port}", f"--num_processes={options.num_processes}"]
    commands = [[*command, *flags, f"--process_id={i}"] for i in range(options.num_processes)]
    extra = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(options.devices)} if options.devices else {}
    if options.dry_run:
        for each in commands:
            print(" ".join([*(f"{name}={value}" for name, value in extra.items()), shlex.join(each)]))
        return 0
    return _run(commands, {**os.environ, **extra}, options.grace)


def _options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        usage="python launch/local_multiprocess.py [OPTION ...] -- COMMAND [ARGUMENT ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = _fail
    parser.add_argument("--num_processes", type=int, default=2, metavar="N", help="number of processes (2)")
    parser.add_argument(
        "--devices", type=int, default=0, metavar="M", help="simulated CPU devices per process (JAX's own)"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the coordinator (a free port)")
    parser.add_argument(
        "--grace", type=float, default=30, metavar="S", help="seconds before a process that must end is killed (30)"
    )
    parser.add_argument("--dry-run", action="store_true", help="prints the commands and does nothing")
    end = argv.index("--") if "--" in argv else len(argv)
    options, command = parser.parse_args(argv[:end]), argv[end + 1 :]
    if not command:
        _fail("no command: python launch/local_multiprocess.py [OPTION ...] -- COMMAND")
    if options.num_processes < 1 or options.devices < 0 or options.grace < 0:
        _fail("--num_processes must be at least 1, --devices and --grace must not be negative")
    return options, command


def _fail(message: str) -> NoReturn:
    print(f"error: {message}; see --help", file=sys.stderr)
    sys.exit(2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _run(commands: list[list[str]], environment: dict[str, str], grace: float) -> int:
    processes: list[subprocess.Popen] = []
    caught: list[int] = []

    def pass_on(number: int, _: object) -> None:
        caught.append(number)
        _signal(processes, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    for command in commands:
        processes.append(_start(command, environment))
        if caught:  # the signal came before all processes were started
            _signal(processes[-1:], caught[-1])
    threads = [_copy(i, p.stdout, sys.stdout.buffer) for i, p in enumerate(processes)]
    threads += [_copy(i, p.stderr, sys.stderr.buffer) for i, p in enumerate(processes)]
    code = _wait(processes, grace)
    for thread in threads:
        thread.join(timeout=1)  # a grandchild may hold the stream open
    return code


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen:
    try:
        # The child has a session of its own, so that it gets Ctrl-C only once, from pass_on.
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        _fail(f"the command does not start: {error}")


def _copy(number: int, source: BinaryIO, target: BinaryIO) -> threading.Thread:
    """Copies lines as they arrive, with the number of the process in front."""

    def copy() -> None:
        for line in source:
            with _writing:
                target.write(b"[%d] %s\n" % (number, line.rstrip(b"\n")))
                target.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _wait(processes: list[subprocess.Popen], grace: float) -> int:
    """Waits until all processes have ended.

    Args:
      grace: seconds between the request to end and the kill.

    Returns:
      The first exit code that is not 0.
    """
    first, asks_at, kills_at = 0, float("inf"), float("inf")
    while any([p.poll() is None for p in processes]):
        codes = [_exit_code(p) for p in processes if p.returncode]
        if codes and not first:
            first = codes[0]
            asks_at = time.monotonic() + (grace if first == SAVED else 0)
        if time.monotonic() >= asks_at:
            _signal(processes, signal.SIGTERM)
            asks_at, kills_at = float("inf"), time.monotonic() + grace
        if time.monotonic() >= kills_at:
            _signal(processes, signal.SIGKILL)
        time.sleep(0.05)
    return first or next((_exit_code(p) for p in processes if p.returncode), 0)


def _signal(processes: list[subprocess.Popen], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _exit_code(process: subprocess.Popen) -> int:
    """The exit code as a shell shows it: 128 + the number of the signal that ended the process."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
