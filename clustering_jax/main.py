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


def _flags(argv: list[str]) -> tuple[dict, Path]:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "Config file.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Directory for everything the run writes.", flag_values=values)
    flags.DEFINE_bool("help", False, "Shows this help.", flag_values=values, short_name="h")
    try:
        rest = values(argv)[1:]
        config = values.config.to_dict() if values["config"].value is not None else None
    except UserError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise UserError(f"the flags or the config can't be read: {error}; see --help") from error
    if values.help:
        print(__doc__.strip(), values.main_module_help(), sep="\n\n")
        sys.exit(0)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; flags are --config=FILE --workdir=DIR --config.KEY=VALUE")
    for name in ("config", "workdir"):
        if not values[name].value:
            raise UserError(f"--{name} is missing: python -m clustering_jax.main --config=FILE --workdir=DIR")
    return config, Path(values.workdir)


def main(argv: list[str]) -> None:
    """Reads the flags and runs."""
    config, workdir = _flags(argv)
    from clustering_jax import run  # with JAX, which takes seconds: not before the flags are right

    run.train(config, workdir)


if __name__ == "__main__":
    cli.use_huge_pages()
    cli.run(lambda: main(sys.argv))
