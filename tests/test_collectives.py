"""Training steps on eight devices exchange sums over clusters and gradients, and never the rows of the batch."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from benchmarks.plans import collectives, step
from clustering_jax.losses import nt_xent
from clustering_jax.method import Spec
from clustering_jax.methods import METHODS
from clustering_jax.parallel import AXIS, data_mesh

K = 3
QUICK = ("dmim", "dxmc, consistent", "dxmc")
VIEWS = {"view0": ((6,), np.float32), "view1": ((6,), np.float32)}
PSEUDO = {"pseudo": ((2,), np.int32)}
EMBEDDINGS = {name: ((6,), np.float32) for name in ("image", "text", "image_partner", "text_partner")}
CMMC = {"hidden": (7, 8), "latent_dim": 6, "feature_dim": 5}
# Method, its settings, phase, features and targets.
SUMS = {
    "dmim": ("dmim", {}, "clusters", VIEWS, {"pseudo": ((1,), np.int32)}),
    "dxmc, consistent": ("dxmc", {"hidden": 9, "instance_dim": 7, "consistent": True}, "contrast", EMBEDDINGS, {}),
    "cmmc, reconstruction": ("cmmc", CMMC, "reconstruct", VIEWS, {}),
    "cmmc, pseudo-labels": ("cmmc", CMMC, "match", VIEWS, PSEUDO),
}
ROWS = {
    "cmmc": ("cmmc", CMMC, "contrast", VIEWS, {}),
    "dxmc": ("dxmc", {"hidden": 9, "instance_dim": 7}, "contrast", EMBEDDINGS, {}),
    "cc": (
        "cc",
        {"backbone": "resnet18", "width": 4, "image_size": 8},
        "contrast",
        {"image": ((8, 8, 3), np.uint8)},
        {},
    ),
}


def cases(table):
    return [pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in table]


def sent(n, name, settings, phase, features, targets):
    """Bytes of each kind of collective in a step on n rows."""
    method = METHODS[name](Spec(K, n, 10, {"train": 1}), **settings)
    batch = {name: ((n, *shape), dtype) for name, (shape, dtype) in (features | targets).items()}
    program = step(method, phase, batch, data_mesh(n), tuple(targets)).compile()
    found = Counter()
    for each in collectives(program.as_text()):
        found[each.kind] += each.bytes
    return found


@pytest.mark.parametrize("case", cases(SUMS))
@pytest.mark.long
def test_steps_of_cluster_losses_send_only_sums(case):
    """There is no gather, and the size is the same for 128 and for 64 rows."""
    found = [sent(n, *SUMS[case]) for n in (64, 128)]
    assert list(found[0]) == ["all-reduce"] and found[0] == found[1]


@pytest.mark.parametrize("case", cases(ROWS))
@pytest.mark.long
def test_only_the_contrast_of_rows_sends_rows(case):
    """For 128 rows the sums are as large as for 64 rows, and the gathered arrays are twice as large."""
    half, whole = (sent(n, *ROWS[case]) for n in (64, 128))
    assert set(whole) == {"all-reduce", "all-gather"}
    assert half["all-reduce"] == whole["all-reduce"] and 2 * half["all-gather"] == whole["all-gather"]


def test_collectives_in_loops_count_as_often_as_they_run():
    def turns(x):
        ring = [(i, (i + 1) % 8) for i in range(8)]
        x = lax.fori_loop(0, 5, lambda _, y: lax.ppermute(jnp.sin(y), AXIS, ring), x)
        return lax.psum(x[:1], AXIS), lax.all_gather(x, AXIS, tiled=True)

    mapped = jax.shard_map(turns, mesh=data_mesh(8), in_specs=P(AXIS), out_specs=P(), check_vma=False)
    text = jax.jit(mapped).lower(jax.ShapeDtypeStruct((32, 3), np.float32)).compile().as_text()
    found = {(c.kind, c.times, c.bytes) for c in collectives(text)}
    assert found == {("collective-permute", 5, 5 * 48), ("all-reduce", 1, 12), ("all-gather", 1, 32 * 12)}


def test_the_ring_sends_all_rows_to_each_device_in_turn():
    """The forward pass sends 512 rows and their examples; the backward pass also sends log-sums and cotangents."""
    rows = jax.ShapeDtypeStruct((256, 4), np.float32)
    loss = partial(nt_xent, impl="ring", axis_name=AXIS)
    mapped = jax.shard_map(loss, mesh=data_mesh(8), in_specs=P(AXIS), out_specs=P())
    text = jax.jit(jax.value_and_grad(mapped, (0, 1))).lower(rows, rows).compile().as_text()
    permuted = sum(c.bytes for c in collectives(text) if c.kind == "collective-permute")
    assert permuted == 512 * 4 * (5 + 7)
