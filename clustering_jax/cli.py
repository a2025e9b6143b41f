"""What the commands share: one line for a user's error, and the exit codes.

0 done, 2 something the user can put right, 3 the loss was not finite, 75 interrupted and saved (start again to go on).
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import config_flags

from clustering_jax.errors import UserError
from clustering_jax.settings.cc import of_kind
from clustering_jax.settings.config_files import resolve
from clustering_jax.settings.documentation import Key, documented
from clustering_jax.settings.method_reference import absolute
from clustering_jax.training.signals import Diverged, Interrupted, Stopped

# A config's numbers take no words.
AUTO = "--config.num_clusters=auto", "--config.num_clusters=0"


def read_flags(
    argv: list[str],
    directory: str,
    doc: str,
    more: flags.FlagValues | None = None,
) -> tuple[dict[str, Any], Path]:
    """Reads the flags of a command that takes a config. Ends the program after ``--help`` and ``--print``.

    Args:
      argv: the name by which the command was called, and its arguments.
      directory: the flag that names the command's directory, or "" for a command that needs none.
      doc: the command's documentation, which ``--help`` prints.
      more: further flags of the command; they are set.

    Returns:
      The config of ``--config`` as a plain dictionary, and the path of ``--DIRECTORY``.

    Raises:
      UserError: a flag or the config can't be read, or a flag is missing.
    """
    values = _defined(argv, directory, more)
    rest, config = _parsed(argv, values)
    if values.help:
        print(*_help(argv[0], doc, values, config), sep="\n\n")
        sys.exit(0)
    needed = "--config=NAME" + f" --{directory}=DIR" * bool(directory)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; flags are {needed} --config.KEY=VALUE")
    for name in ("config", *([directory] if directory and not values["print"].value else [])):
        if not values[name].value:
            raise UserError(f"--{name} is missing: {argv[0]} {needed}")
    config["method"] = absolute(values.method or config.get("method", ""))
    if values["print"].value:
        print(json.dumps(config, indent=2))
        sys.exit(0)
    return config, Path(str(values[directory].value or "") if directory else "").expanduser()


def _defined(argv: list[str], directory: str, more: flags.FlagValues | None) -> flags.FlagValues:
    values = flags.FlagValues() if more is None else more
    text = "Name of a published config or path of a file, as cc_digits or cc_digits:smoke."
    config_flags.DEFINE_config_file("config", None, text, flag_values=values, sys_argv=argv)
    text = "Trains another method than the config's: FILE.py:FUNCTION, or a name that an installed package provides."
    flags.DEFINE_string("method", None, text, flag_values=values)
    if directory:
        flags.DEFINE_string(directory, None, "Directory for everything that is written.", flag_values=values)
    flags.DEFINE_bool("print", False, "Prints the resolved config as JSON and ends.", flag_values=values)
    flags.DEFINE_bool("help", False, "Shows this help, and the keys of --config.", flag_values=values, short_name="h")
    return values


def _parsed(argv: list[str], values: flags.FlagValues) -> tuple[list[str], dict[str, Any]]:
    """The arguments that are no flags, and the config, empty where none is given."""
    argv = _with_paths([AUTO[1] if argument == AUTO[0] else argument for argument in argv])
    try:
        rest = values(argv)[1:]
        if values["config"].value is None:
            return rest, {}
        config = values.config.to_dict()
        given = [match[1] for argument in argv if (match := re.match(r"--?config\.augment\.(\w+)", argument))]
        return rest, {**config, "augment": of_kind(config["augment"], given)} if "kind" in given else config
    except UserError:
        raise
    except Exception as error:
        if place := _place_in_config(error, argv):
            raise UserError(f"{place}: {type(error).__name__}: {error}") from error
        if not isinstance(error, (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError)):
            raise
        text: object = error
        while isinstance(text, AttributeError | KeyError) and text.args:
            text = text.args[0]  # a KeyError's own text is quoted
        raise UserError(f"the flags or the config can't be read: {text}; see --help") from error


def _place_in_config(error: BaseException, argv: list[str]) -> str:
    """The file and line of a config that raised `error`; "" where no config did, as for a wrong flag."""
    given = [argument.removeprefix("--config=").partition(":")[0] for argument in argv]
    configs = {os.path.abspath(name) for name in given if name.endswith(".py")}
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    ours = [f"{file}, line {line}" for file, line in places if os.path.abspath(file) in configs]
    return ours[-1] if ours else ""


def _with_paths(argv: list[str]) -> list[str]:
    """`argv` with the path of the config in place of its name."""
    result = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag.lstrip("-") != "config" or not flag.startswith("-"):
            continue
        if equals:
            result[i] = f"{flag}={resolve(value)}"
        elif i + 1 < len(argv):
            result[i + 1] = resolve(argv[i + 1])
    return result


def _help(program: str, doc: str, values: flags.FlagValues, config: dict[str, Any]) -> Iterator[str]:
    """The parts of the help: the documentation with the command's name as it was called, the flags, the keys."""
    yield re.sub(r"^``python -m [\w.]+", f"``{program}", doc.strip())
    own = [values[name] for name in sorted(values) if not name.startswith("config.") and name != "h"]
    yield "\n".join(["Flags:", *(f"  --{f.name:<15}{f.help}{_default(f.default)}" for f in own)])
    if config:
        yield "\n".join(["Keys of the config, set by --config.KEY=VALUE:", *map(_key, documented(config))])


def _key(key: Key) -> str:
    """A key and its value, and below them what the key means."""
    comment = textwrap.fill(key.comment, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"  {key.name} = {key.value!r}" + f"\n{comment}" * bool(comment)


def _default(value: Any) -> str:
    return "" if value in (None, False, "") else f" (default: {value})"


def run(command: Callable[[], None]) -> NoReturn:
    """Runs `command` and exits by the table above."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # messages may quote file names that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    # Orbax logs what it was asked to do as warnings, and what it also raises as errors of many lines.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = _unraisable
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)
    try:
        _flushed(command)
    except BrokenPipeError:
        _check_stdout_is_closed()
    except UserError as error:
        sys.exit(_say("error", error, 2))
    except Diverged as error:
        sys.exit(_say("diverged", error, 3))
    except Interrupted as error:
        sys.exit(_say("interrupted", error, 75))
    except Stopped as error:
        code = _say("interrupted", error, 75)
        sys.stdout.flush()
        # Not by sys.exit: an import of JAX that was cut short can crash as Python ends.
        os._exit(code)
    sys.exit(0)


def _flushed(command: Callable[[], None]) -> None:
    """Runs `command` and writes what it printed, also if it ends by `sys.exit`."""
    try:
        command()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _check_stdout_is_closed() -> None:
    """Raises the `BrokenPipeError` again, unless it came from a reader of the output that has ended, such as `head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        raise


def _unraisable(error: Any) -> None:
    """Leaves out what Orbax's threads report after an error that was raised: that their event loop is closed."""
    if not (isinstance(error.exc_value, RuntimeError) and "Event loop is closed" in str(error.exc_value)):
        sys.__unraisablehook__(error)


def _stop(*_: object) -> NoReturn:
    raise Stopped("stopped by a signal; what was saved stays, the same command goes on from there")


def use_huge_pages() -> None:
    """Starts the program again, once, with glibc's huge pages; a GLIBC_TUNABLES that is set already stays.

    XLA's CPU backend returns its buffers after every step: without huge pages a step of ResNet18 at 32 px spends a
    quarter of its time on page faults. glibc reads the variable at the start of a process alone.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})


def _say(kind: str, error: BaseException, code: int) -> int:
    print(f"{kind}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code
