"""``python -m clustering_jax.main --config=configs/cc_digits.py --workdir=runs/digits [--config.seed=1 ...]``.

Trains what the config says and writes to the workdir. The same command again resumes a run cut short and does nothing
to a finished one. A config file is Python and is executed: use only those you trust. Exit codes: see `cli`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from clustering_jax import cli
from clustering_jax.errors import UserError

# A config's numbers take no words.
AUTO = "--config.num_clusters=auto", "--config.num_clusters=0"


def read_flags(argv: list[str], directory: str, command: str, doc: str) -> tuple[dict, Path]:
    """The config of ``--config`` as a plain dictionary, and the path of ``--DIRECTORY``.

    Prints `doc` and ends where help is asked for; UserError for what can't be read or is missing.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "Config file.", flag_values=values)
    flags.DEFINE_string(directory, None, "Directory for everything that is written.", flag_values=values)
    flags.DEFINE_bool("help", False, "Shows this help.", flag_values=values, short_name="h")
    try:
        rest = values([AUTO[1] if argument == AUTO[0] else argument for argument in argv])[1:]
        config = values.config.to_dict() if values["config"].value is not None else None
    except UserError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise UserError(f"the flags or the config can't be read: {error}; see --help") from error
    if values.help:
        print(doc.strip(), values.main_module_help(), sep="\n\n")
        sys.exit(0)
    if rest:
        shown = f"--config=FILE --{directory}=DIR --config.KEY=VALUE"
        raise UserError(f"unexpected argument '{rest[0]}'; flags are {shown}")
    for name in ("config", directory):
        if not values[name].value:
            usage = f"python -m clustering_jax.{command} --config=FILE --{directory}=DIR"
            raise UserError(f"--{name} is missing: {usage}")
    return config, Path(values[directory].value)


def main(argv: list[str]) -> None:
    """Reads the flags and runs."""
    config, workdir = read_flags(argv, "workdir", "main", __doc__)
    from clustering_jax import run  # with JAX, which takes seconds: not before the flags are right

    run.train(config, workdir)


if __name__ == "__main__":
    cli.use_huge_pages()
    cli.run(lambda: main(sys.argv))
