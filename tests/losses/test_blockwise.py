"""The blockwise and ring forms of NT-Xent equal the dense form and textbook loops, in linear memory."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clustering_jax.losses import nt_xent
from clustering_jax.parallel import AXIS, data_mesh
from tests.losses.test_contrastive import (
    COLLECTIVES,
    FORM_CASES,
    HARD,
    assert_any_number_of_devices,
    first_quick,
    nt_xent_loop,
    views,
)

# Divides neither the 2 n rows of a batch below nor the rows of a device.
BLOCK = 7


def mesh_of(devices):
    return data_mesh(devices, jax.devices()[:devices])


def per_device(function, devices):
    """Maps `function(a, b, temperature, where, axis_name)` over the given number of devices."""
    specs = {"in_specs": (P(AXIS), P(AXIS), P(), P(AXIS)), "out_specs": P()}
    return jax.shard_map(partial(function, axis_name=AXIS), mesh=mesh_of(devices), **specs)


@cache
def value_and_gradients(impl, devices=None, masked=True, block=BLOCK):
    """Gradients for a, b and the temperature as NumPy arrays, per device or without devices; one program per shape."""

    def loss(a, b, temperature, where, axis_name=None):
        where = where if masked else None
        return nt_xent(a, b, temperature=temperature, where=where, axis_name=axis_name, impl=impl, block=block)

    compiled = jax.jit(jax.value_and_grad(per_device(loss, devices) if devices else loss, (0, 1, 2)))
    return lambda *arguments: jax.device_get(compiled(*arguments))


def unit_views(n, d=6, seed=0):
    """Two views [n, d] of norm 1 that agree in part."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d))
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, a + rng.normal(size=a.shape)))


def with_duplicates(a, b):
    return tuple(np.concatenate([x[: len(x) // 2], x[: len(x) - len(x) // 2]]) for x in (a, b))


def with_zero_row(a, b):
    return np.concatenate([0 * a[:1], a[1:]]), b


CASES = {
    "random": lambda a, b: (a, b),
    "duplicates": with_duplicates,
    "equal rows": lambda a, b: (np.broadcast_to(a[:1], a.shape),) * 2,
    "zero row": with_zero_row,
}
WAYS = {
    "blockwise": ("blockwise", None),
    **{f"blockwise on {devices}": ("blockwise", devices) for devices in (2, 8)},
    **{f"ring on {devices}": ("ring", devices) for devices in (1, 2, 4, 8)},
}


def cancelling(n, temperature):
    """Size of the terms of the value and of each gradient that cancel if all rows are equal."""
    return 0, 1 / (n * temperature), 1 / (n * temperature), 1 / temperature**2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", first_quick(WAYS, ("blockwise", "blockwise on 8", "ring on 8")))
@pytest.mark.parametrize("x64, tolerance", [(True, 1e-12), (False, 5e-6)])
def test_equals_dense(x64, tolerance, way, case, masked):
    impl, devices = WAYS[way]
    n = 40 if devices else 37
    where = np.arange(n) % 3 > 0
    with jax.enable_x64(x64):
        a, b = (jnp.asarray(x) for x in CASES[case](*unit_views(n)))
        for temperature in (0.01, 0.1, 1.0):
            arguments = a, b, jnp.asarray(temperature), where
            expected = value_and_gradients("dense", masked=masked)(*arguments)
            actual = value_and_gradients(impl, devices, masked)(*arguments)
            floors = cancelling(n, temperature) if case == "equal rows" else (0,) * 4
            for x, y, floor in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), floors, strict=True):
                assert x.shape == y.shape and x.dtype == y.dtype
                assert np.max(np.abs(x - y)) <= tolerance * max(np.max(np.abs(y)), floor)


@pytest.mark.parametrize("block", [1, 2, 5, 512])
@pytest.mark.parametrize("n", [2, 3, 16])
def test_equals_the_loop(n, block):
    a, b = views(n, 5)
    with jax.enable_x64(True):
        value, _ = value_and_gradients("blockwise", None, False, block)(a, b, 0.3, np.ones(n, bool))
    assert value == pytest.approx(nt_xent_loop(a, b, 0.3), rel=1e-12)


def learnt(weights, a, b, axis_name=None, impl=None):
    """The loss of a replicated network as in training. The network also sets the temperature and `where`."""
    p, q = (jax.nn.softmax(x @ weights) for x in (a, b))
    options = {"temperature": jnp.exp(weights[0, 0]), "axis_name": axis_name, "block": BLOCK}
    options["impl"] = impl if axis_name else "blockwise"
    return nt_xent(p, q, **options) + 2 * nt_xent(p, q, where=p[:, 0] > 0.15, **options)


@pytest.mark.parametrize("form", FORM_CASES)
def test_any_number_of_devices(form):
    impl = "blockwise" if form == "jit" else "ring"
    rng = np.random.default_rng(6)
    a = rng.normal(size=(24, 6))
    arrays = [jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(6, 5)), a, a + rng.normal(size=a.shape))]
    assert_any_number_of_devices(partial(learnt, impl=impl), arrays, form)


@pytest.mark.parametrize("impl", ["blockwise", "ring"])
def test_replicated_rows(impl):
    """Every device has the same rows, which do not vary over the axis. The dense form accepts them too."""

    def loss(impl):
        def replicated(a, b):
            return nt_xent(a, b, impl=impl, axis_name=AXIS, block=BLOCK)

        mapped = jax.shard_map(replicated, mesh=mesh_of(2), in_specs=P(), out_specs=P())
        return jax.device_get(jax.jit(jax.value_and_grad(mapped, (0, 1)))(*views(6)))

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), loss(impl), loss("dense"))


@pytest.mark.parametrize("hard", HARD)
def test_finite_value_and_gradient(hard):
    x = HARD[hard].astype(np.float32)
    for temperature in (0.01, 1.0):
        value, gradients = value_and_gradients("blockwise")(x, np.roll(x, 1, axis=0), temperature, np.ones(24, bool))
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_low_temperature_gradient():
    """Compares float32 with float64 if the positive pairs dominate and the loss is nearly 0."""
    rng = np.random.default_rng(5)
    a = rng.normal(size=(64, 128))
    arrays = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, a + 0.3 * rng.normal(size=a.shape))]
    where = np.ones(64, bool)
    _, single = value_and_gradients("blockwise")(*(x.astype(np.float32) for x in arrays), 0.02, where)
    with jax.enable_x64(True):
        value, double = value_and_gradients("blockwise")(*arrays, 0.02, where)
    assert 0 < value < 0.01
    for x, y in zip(single, double, strict=True):
        assert np.max(np.abs(x - y)) <= 1e-4 * np.max(np.abs(y))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("way", ["blockwise", "ring on 4"])
def test_half_precision_is_accumulated_in_float32(way, dtype):
    arrays = [jnp.asarray(x, dtype) for x in unit_views(512, 64)]
    rest = jnp.float32(0.1), np.ones(512, bool)
    value, gradients = value_and_gradients(*WAYS[way], block=100)(*arrays, *rest)
    expected, wanted = value_and_gradients("dense")(*(x.astype(jnp.float32) for x in arrays), *rest)
    # Products of halves are exact in float32; the gradients are rounded once, at the end.
    assert value.dtype == jnp.float32 and value == pytest.approx(expected, rel=1e-5)
    for x, y in zip(gradients[:2], wanted[:2], strict=True):
        assert x.dtype == dtype
        assert np.max(np.abs(np.asarray(x, np.float32) - y)) <= 5e-3 * np.max(np.abs(y))
    assert gradients[2] == pytest.approx(wanted[2], rel=1e-2)


def test_products_of_half_precision_are_float32():
    """Checks the traced program, because the CPU backend computes the products in float32 in any case."""
    rows = jax.ShapeDtypeStruct((20, 4), jnp.bfloat16)
    program = jax.make_jaxpr(jax.grad(partial(nt_xent, impl="blockwise"), (0, 1)))(rows, rows)
    assert re.findall(r":(\w+)\[[\d,]*\] = dot_general\[", str(program)) == ["f32"] * 3


# --- Excluded rows


@pytest.mark.parametrize("garbage", [1e6, np.inf, np.nan])
@pytest.mark.parametrize("way", ["dense", "blockwise", "ring on 4"])
def test_excluded_rows_have_no_effect(way, garbage):
    impl, devices = WAYS.get(way, ("dense", None))
    a, b = (x.astype(np.float32) for x in unit_views(24))
    where = np.arange(24) % 3 > 0
    filled = [np.where(where[:, None], x, np.float32(garbage)) for x in (a, b)]
    value, gradients = value_and_gradients(impl, devices)(*filled, 0.2, where)
    expected, wanted = value_and_gradients("dense", masked=False)(a[where], b[where], 0.2, where[where])
    assert value == pytest.approx(expected, rel=1e-6) and gradients[2] == pytest.approx(wanted[2], rel=1e-5)
    for x, y in zip(gradients[:2], wanted[:2], strict=True):
        assert not np.asarray(x)[~where].any()
        np.testing.assert_allclose(x[where], y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("way", ["blockwise", "ring on 2"])
def test_few_included_rows(way, count, sign):
    """One or no row gives no loss. Two rows of extreme similarity do not overflow if all others are excluded."""
    a, b = views(6, 3)
    where = np.arange(6) < count
    value, gradients = value_and_gradients(*WAYS[way])(a, sign * b, 0.001, where)
    assert all(np.isfinite(g).all() for g in gradients)
    expected = value_and_gradients("dense")(a, sign * b, 0.001, where)[0] if count == 2 else 0
    assert value == pytest.approx(expected, rel=1e-6)


# --- Memory and messages


def compiled_gradient(n, d=128, devices=None, impl="blockwise", dtype=jnp.float32, **options):
    """Compiles value and gradient without running them."""
    function = partial(nt_xent, impl=impl, **options)
    if impl == "ring":
        function = partial(function, axis_name=AXIS)
        function = jax.shard_map(function, mesh=mesh_of(devices), in_specs=P(AXIS), out_specs=P())
    sharding = NamedSharding(mesh_of(devices), P(AXIS)) if devices else None
    rows = jax.ShapeDtypeStruct((n, d), dtype, sharding=sharding)
    return jax.jit(jax.value_and_grad(function, (0, 1))).lower(rows, rows).compile()


@pytest.mark.parametrize(
    "limit, options",
    [
        (160, {}),
        (160, {"dtype": jnp.bfloat16}),
        (48, {"impl": "ring", "devices": 4}),
        (48, {"devices": 4}),
    ],
)
def test_memory_is_linear(limit, options):
    """MiB on each device for 2n = 32,768 rows. All similarities would need 4,096 MiB."""
    half, whole = (compiled_gradient(n, **options).memory_analysis().temp_size_in_bytes for n in (8192, 16384))
    assert whole <= limit * 2**20
    assert 1.8 <= whole / half <= 2.2


def test_the_ring_never_gathers_all_rows():
    """For 8,192 rows on four devices, no array is larger than the rows of a device or their products with a block."""
    n, d, devices, block = 4096, 128, 4, 128
    text = compiled_gradient(n, d, devices, "ring", block=block).as_text()
    shapes = re.findall(r"\b(?:pred|[suf]\d+|bf16)\[([\d,]+)\]", text)
    sizes = [np.prod([int(x) for x in shape.split(",")]) for shape in shapes]
    assert max(sizes) == 2 * n // devices * max(d, block)
    assert "collective-permute" in text and "all-gather" not in text


def test_sharded_rows_are_gathered_block_by_block():
    """Under `jit`, the largest message is one block, and no array is larger than in the ring."""
    n, d, devices, block = 4096, 128, 4, 128
    text = compiled_gradient(n, d, devices, block=block).as_text()
    sent = [shape for result in re.findall(COLLECTIVES, text) for shape in re.findall(r"\[([\d,]*)\]", result)]
    assert max(np.prod([int(x) for x in shape.split(",") if x]) for shape in sent) == block * d
    sizes = [np.prod([int(x) for x in shape.split(",")]) for shape in re.findall(r"f32\[([\d,]+)\]", text)]
    assert max(sizes) == 2 * n // devices * max(d, block)


# --- Transformations


@pytest.mark.long
def test_under_vmap_scan_and_checkpoint():
    """Several seeds side by side, and several steps in one program."""
    batches = jnp.stack([jnp.stack(unit_views(9, seed=seed)) for seed in range(3)])
    temperatures = jnp.array([0.1, 0.3, 1.0])
    where = np.ones(9, bool)

    def gradients(views, temperature):
        loss = jax.checkpoint(partial(nt_xent, impl="blockwise", block=BLOCK))
        return jax.value_and_grad(lambda a, b, t: loss(a, b, temperature=t), (0, 1, 2))(*views, temperature)

    wanted = [value_and_gradients("dense")(*x, t, where) for x, t in zip(batches, temperatures, strict=True)]
    wanted = jax.tree.map(lambda *x: np.stack(x), *wanted)
    check = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(check, jax.jit(jax.vmap(gradients))(batches, temperatures), wanted)
    _, scanned = jax.lax.scan(lambda _, x: (None, gradients(*x)), None, (batches, temperatures))
    jax.tree.map(check, scanned, wanted)


def squared_gradient(loss, x):
    return jnp.sum(jax.grad(loss)(x) ** 2)


SECOND = {
    "reverse over reverse": lambda loss, x: jax.grad(partial(squared_gradient, loss))(x),
    "forward over reverse": lambda loss, x: jax.jvp(jax.grad(loss), (x,), (x,)),
    "compiled": lambda loss, x: jax.jit(jax.grad(partial(squared_gradient, jax.jit(loss))))(x),
}


@pytest.mark.parametrize("by", ["rows", "temperature"])
@pytest.mark.parametrize("second", SECOND)
def test_second_derivative_is_refused(second, by):
    a, b = (jnp.asarray(x, jnp.float32) for x in unit_views(6))

    def loss(x):
        changed = {"rows": {"a": x}, "temperature": {"a": a, "temperature": x}}[by]
        return nt_xent(b=b, impl="blockwise", **changed)

    x = {"rows": a, "temperature": jnp.float32(0.5)}[by]
    with pytest.raises(ValueError, match=r"^nt_xent: .* no second derivative; pass impl='dense'") as error:
        SECOND[second](loss, x)
    assert "\n" not in str(error.value)


def test_forward_mode_is_refused():
    a, b = (jnp.asarray(x, jnp.float32) for x in unit_views(6))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(partial(nt_xent, b=b, impl="blockwise"), (a,), (a,))


# --- Selection of a form


def forms_in(n, axis_name=None, **options):
    """Names the forms that the traced program uses."""
    function = partial(nt_xent, axis_name=axis_name, **options)
    if axis_name:
        function = jax.shard_map(function, mesh=mesh_of(8), in_specs=P(AXIS), out_specs=P())
    rows = jax.ShapeDtypeStruct((n, 4), jnp.float32)
    program = str(jax.make_jaxpr(function)(rows, rows))
    return {name for name in ("name=_kept_log_sums", "name=_log_sums", "ppermute", "all_gather") if name in program}


@pytest.mark.parametrize(
    "n, axis_name, expected",
    [
        (1016, None, {"name=_kept_log_sums"}),
        (1024, None, {"name=_log_sums"}),
        (1016, AXIS, {"name=_kept_log_sums", "all_gather"}),
        (1024, AXIS, {"name=_log_sums", "ppermute"}),
    ],
)
def test_auto(n, axis_name, expected):
    """From 2,048 rows over all devices, `auto` is blockwise; with an axis it is the ring."""
    assert forms_in(n, axis_name) == expected


@pytest.mark.parametrize(
    "options, message",
    [
        ({"impl": "ring"}, "impl='ring' needs axis_name: call it per device"),
        ({"impl": "sparse"}, "impl 'auto', 'dense', 'blockwise' or 'ring', got 'sparse'"),
        ({"block": 0}, "block >= 1, got 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=f"^nt_xent: .*{re.escape(message)}"):
        nt_xent(*views(), **options)
