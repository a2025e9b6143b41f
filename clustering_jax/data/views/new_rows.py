"""Reads new objects for a model that was trained on views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clustering_jax.data.base import Dataset
from clustering_jax.data.views.checked import ReadOptions, load_views
from clustering_jax.data.views.dataset import apply_scalings, small_enough
from clustering_jax.data.views.files import Source, names, open_source
from clustering_jax.data.views.pca import project
from clustering_jax.errors import UserError


def new_rows(
    path: str | Path | Source,
    options: Mapping[str, Any],
    scalings: Mapping[str, Mapping[str, Any]],
    numbers: Sequence[int] = (),
) -> Dataset:
    """Reads new objects, and scales and projects them as the training data were.

    Labels among the new objects are ignored.

    Args:
      path: as for `multiview`, or an open source.
      options: settings with which `multiview` or `multiview_pca` read the training data. Views and a mask that they
        name are read from `path`, never from elsewhere.
      scalings: the scalings of the training data.
      numbers: which of the training's views `path` holds, from 0 and increasing; () is all.

    Raises:
      UserError: as `multiview`; or a number is not a view of the training data, or out of order.
    """
    wrong = [v for v in numbers if f"view{v}" not in scalings]
    if wrong:
        raise UserError(f"there is no view {wrong[0]}: the training data had views 0 to {len(scalings) - 1}")
    if list(numbers) != sorted(set(numbers)):
        raise UserError(
            f"views {', '.join(map(str, numbers))}: name each view once, in increasing order, and the files likewise"
        )
    numbers = list(numbers) or list(range(len(scalings)))
    keys = names(options.get("views", ()))
    keys = [keys[v] for v in numbers] if len(keys) == len(scalings) else keys
    source = path if isinstance(path, Source) else open_source(path)
    mask_key, missing, notes = source.find(options.get("mask_key", "")), options.get("missing", "error"), list[str]()
    if options.get("mask_key") and not mask_key:
        notes = [f"{source.name} has no mask '{options['mask_key']}': a view is missing only in rows of NaN"]
        missing = "nan"
    labels, mask = source.holder(source.find(options.get("label_key", ""))), source.holder(mask_key)
    if keys:
        keys = _new_keys(source, keys, {labels, mask})
    elif labels != mask:
        source = source._replace(readers={key: read for key, read in source.readers.items() if key != labels})
    read = ReadOptions(keys, mask_key=mask_key, missing=missing, transpose=options.get("transpose", False))
    views = load_views(source, read, allow_single=True, mask_columns=numbers)
    views = views._replace(notes=(*views.notes, *notes))
    return small_enough(project(apply_scalings(views, {f"view{v}": scalings[f"view{v}"] for v in numbers})))


def _new_keys(source: Source, keys: list[str], others: set[str]) -> list[str]:
    """Returns the keys in `source` of the training's views `keys`. `others` are the readers of labels and mask."""
    new_keys = [source.find(key) for key in keys]
    if not any(new_keys) and _has_one_array_per_file(source):
        # No name is known, so the order of the files decides.
        return [key for key in source.readers if key not in others]
    return [new or key for new, key in zip(new_keys, keys, strict=True)]


def _has_one_array_per_file(source: Source) -> bool:
    """Returns whether the source is one or several files, not a folder, that hold one array without a key each."""
    if source.keyed:
        return list(source.readers) == [Path(source.name).name]
    return not Path(source.name).expanduser().is_dir()
