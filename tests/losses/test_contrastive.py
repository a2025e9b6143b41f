"""Compares contrastive losses with the authors' values and textbook loops; tests symmetries and many devices."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clustering_jax.losses import cluster_contrast, imbalance, normalize, nt_xent
from clustering_jax.parallel import AXIS, data_mesh
from tests.paths import FIXTURES

FIXTURES = np.load(FIXTURES / "contrastive.npz")


def both_imbalances(p, q, axis_name=None):
    """Sum with unequal weights, so that exchanged views give another value."""
    return imbalance(p, axis_name=axis_name) + 2 * imbalance(q, axis_name=axis_name)


LOSSES = {"nt_xent": nt_xent, "cluster_contrast": cluster_contrast, "imbalance": both_imbalances}


def cc_cluster(p, q, temperature):
    """The loss of the clusters in Contrastive Clustering."""
    return cluster_contrast(p, q, temperature=temperature) + imbalance(p) + imbalance(q)


@cache
def value_and_gradients(name):
    """Returns NumPy arrays. The program is compiled once for each shape and type."""
    functions = LOSSES | {"cc_cluster": cc_cluster, "normalize": lambda x, y: jnp.sum(normalize(x) * y)}
    compiled = jax.jit(jax.value_and_grad(functions[name], (0, 1)))
    return lambda *arrays, **options: jax.device_get(compiled(*arrays, **options))


def views(n=24, k=5, seed=0):
    """Two views [n, k], rows on the simplex, that agree in part."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, k))
    return tuple(softmax(logits + rng.normal(size=(n, k))) for _ in range(2))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def assert_close(actual, expected, tolerance):
    """Largest difference relative to the largest expected entry."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected)) <= tolerance * np.max(np.abs(expected))


# --- Textbook loops


def nt_xent_rows(a, b, temperature):
    """Loss of each of the 2n rows of [a; b]."""
    z, n = np.concatenate([a, b]), len(a)
    losses = []
    for i in range(2 * n):
        others = sum(np.exp(z[i] @ z[j] / temperature) for j in range(2 * n) if j != i)
        losses.append(np.log(others) - z[i] @ z[(i + n) % (2 * n)] / temperature)
    return np.array(losses)


def nt_xent_loop(a, b, temperature=0.5):
    return nt_xent_rows(a, b, temperature).mean()


def cluster_contrast_loop(p, q, temperature=1.0):
    unit = [np.stack([c / np.linalg.norm(c) for c in x.T]) for x in (p, q)]
    return nt_xent_loop(*unit, temperature)


def imbalance_loop(p):
    total, value = p.sum(), np.log(p.shape[1])
    for column in p.T:
        mean = column.sum() / total
        value += mean * np.log(mean) if mean > 0 else 0
    return value


LOOPS = {
    "nt_xent": nt_xent_loop,
    "cluster_contrast": cluster_contrast_loop,
    "imbalance": lambda p, q: imbalance_loop(p) + 2 * imbalance_loop(q),
}


def slope(function, arrays, directions, step=1e-5):
    """Central difference along `directions`."""
    ahead, behind = (function(*(x + h * v for x, v in zip(arrays, directions, strict=True))) for h in (step, -step))
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("n, k", [(2, 2), (3, 5), (16, 10)])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_loop(name, n, k):
    arrays = views(n, k)
    expected = LOOPS[name](*arrays)
    value, gradients = value_and_gradients(name)(*(x.astype(np.float32) for x in arrays))
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    with jax.enable_x64(True):
        value, gradients = value_and_gradients(name)(*arrays)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-13)
    for directions in np.random.default_rng(7).normal(size=(4, 2, n, k)):
        along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
        assert along == pytest.approx(slope(LOOPS[name], arrays, directions), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ["nt_xent", "cluster_contrast"])
@pytest.mark.parametrize("temperature", [0.1, 4.0])
@pytest.mark.long
def test_temperature(name, temperature):
    arrays = views(8)
    expected = LOOPS[name](*arrays, temperature)
    assert LOSSES[name](*arrays, temperature=temperature) == pytest.approx(expected, rel=1e-5)
    traced, _ = value_and_gradients(name)(*arrays, temperature=temperature)
    assert traced == pytest.approx(expected, rel=1e-5)


# --- The authors' code: values and gradients in float64 (cc_*: normalised rows; dxmc_*: rows that are not normalised)


@pytest.mark.parametrize("case", sorted({key.rsplit("/", 1)[0] for key in FIXTURES}))
@pytest.mark.parametrize("x64, value_tolerance, gradient_tolerance", [(False, 1e-5, 1e-4), (True, 1e-10, 1e-10)])
def test_equals_the_code_of_the_authors(case, x64, value_tolerance, gradient_tolerance):
    name = "cc_cluster" if case.startswith("cc_cluster") else "nt_xent"
    with jax.enable_x64(x64):
        arrays = [jnp.asarray(FIXTURES[f"{case}/in{i}"]) for i in (0, 1)]
        value, gradients = value_and_gradients(name)(*arrays, temperature=FIXTURES[f"{case}/temperature"])
        assert value.dtype == (jnp.float64 if x64 else jnp.float32)
        assert_close(value, FIXTURES[f"{case}/value"], value_tolerance)
        for i, gradient in enumerate(gradients):
            if f"{case}/grad{i}" in FIXTURES:  # The largest case has only the gradient of the first view.
                expected = FIXTURES[f"{case}/grad{i}"]
                if name == "cc_cluster":  # A gradient through softmax does not depend on a constant per row.
                    gradient, expected = (np.asarray(x) - x.mean(1, keepdims=True) for x in (gradient, expected))
                assert_close(gradient, expected, gradient_tolerance)


# --- Symmetries: function(T x) == function(x), and T transforms the gradient

ROWS, COLUMNS = np.random.default_rng(1).permutation(24), np.random.default_rng(2).permutation(5)
ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
SYMMETRIES = {
    "rows permuted": lambda a, b: (a[ROWS], b[ROWS]),
    "views swapped": lambda a, b: (b, a),
    "clusters relabelled": lambda a, b: (a[:, COLUMNS], b[:, COLUMNS]),
    "embeddings rotated": lambda a, b: (a @ ROTATION, b @ ROTATION),
}
HAS_NOT = {
    ("imbalance", "views swapped"),
    *((x, "embeddings rotated") for x in ("cluster_contrast", "imbalance")),
}


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("name", LOSSES)
def test_symmetry(name, symmetry):
    function, move = value_and_gradients(name), SYMMETRIES[symmetry]
    with jax.enable_x64(True):
        value, gradients = function(*views())
        moved_value, moved_gradients = function(*move(*views()))
        if (name, symmetry) in HAS_NOT:
            assert abs(value - moved_value) > 1e-3 * value
            return
        assert_close(moved_value, value, 1e-12)
        for moved, expected in zip(moved_gradients, move(*gradients), strict=True):
            assert_close(moved, expected, 1e-11)


@pytest.mark.parametrize("name", ["nt_xent", "cluster_contrast"])
def test_the_pairing_of_rows_matters(name):
    """If only one view is permuted, the loss changes."""
    a, b = views()
    together, rows, columns = (value_and_gradients(name)(a, x)[0] for x in (b, b[ROWS], b[:, COLUMNS]))
    assert rows > together + 1e-2 and columns > together + 1e-2


def masked(p, q, axis_name=None):
    """`nt_xent` on the rows whose first entry is not small."""
    return nt_xent(p, q, where=p[:, 0] > 0.15, axis_name=axis_name)


@pytest.mark.long
def test_excluded_rows_have_no_effect():
    a, b = views(12, 5)
    where = np.arange(12) % 3 > 0
    grad = jax.value_and_grad(lambda a, b: nt_xent(a, b, where=jnp.asarray(where)), (0, 1))
    value, gradients = grad(*(jnp.where(where[:, None], x, 1e6) for x in (a, b)))
    expected, expected_gradients = jax.value_and_grad(nt_xent, (0, 1))(a[where], b[where])
    assert_close(value, expected, 1e-6)
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        assert_close(actual[where], wanted, 1e-5)
        assert not np.asarray(actual)[~where].any()


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.long
def test_too_few_included_rows_give_no_loss(count):
    a, b = views(6, 3)
    value, gradient = jax.value_and_grad(nt_xent)(a, b, where=jnp.arange(6) < count)
    assert value == 0 and np.isfinite(gradient).all()


def test_where_must_fit():
    with pytest.raises(ValueError, match=r"where \[n\], got \(5,\) for \(6, 3\)"):
        nt_xent(*views(6, 3), where=np.ones(5, bool))


def assert_same_on_a_duplicated_batch(function):
    """Duplicates the batch: the value is equal, and each copy of a row has half of its gradient."""
    with jax.enable_x64(True):
        value, gradients = function(*views())
        twice, shared = function(*(np.concatenate([x, x]) for x in views()))
    assert_close(twice, value, 1e-12)
    for half, gradient in zip(shared, gradients, strict=True):
        assert_close(2 * np.asarray(half), np.concatenate([gradient, gradient]), 1e-11)


@pytest.mark.parametrize("name", ["cluster_contrast", "imbalance"])
def test_duplicating_the_batch_leaves_cluster_losses_unchanged(name):
    assert_same_on_a_duplicated_batch(value_and_gradients(name))


def test_nt_xent_of_a_duplicated_batch():
    """Each row now has every negative twice, its positive pair twice, and its own copy.

    With l_i the old loss of row i, the new one is log(2 exp(l_i) + exp(s_ii - s_ip)).
    """
    a, b = views()
    z, paired = np.concatenate([a, b]), np.concatenate([b, a])
    own_copy = np.exp(np.sum(z * z - z * paired, axis=1) / 0.5)
    expected = np.mean(np.log(2 * np.exp(nt_xent_rows(a, b, 0.5)) + own_copy))
    a, b = np.concatenate([a, a]), np.concatenate([b, b])
    assert nt_xent_loop(a, b) == pytest.approx(expected, rel=1e-12)
    assert nt_xent(a, b) == pytest.approx(expected, rel=1e-6)


def test_imbalance_range_and_scale():
    k, p = 5, views()[0]
    assert imbalance(np.full((8, k), 1 / k)) == pytest.approx(0, abs=1e-6)
    assert imbalance(np.eye(k)[np.zeros(8, int)]) == pytest.approx(np.log(k), rel=1e-6)
    assert imbalance(7 * p) == pytest.approx(imbalance_loop(p), rel=1e-5)


def test_normalize():
    x = views()[0] * np.logspace(-25, 25, 24)[:, None]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(normalize(x), unit, rtol=1e-6)
    weights = np.random.default_rng(4).normal(size=x.shape)
    _, (gradient, _) = value_and_gradients("normalize")(x, weights)
    tangent = weights - unit * np.sum(weights * unit, axis=1, keepdims=True)
    expected = tangent / np.linalg.norm(x, axis=1, keepdims=True)
    for row, expected_row in zip(gradient, expected, strict=True):
        assert_close(row, expected_row, 1e-5)


# --- Hard inputs


def collapsed(n=24, k=5):
    return np.eye(k)[np.zeros(n, int)]


def with_row(value):
    return np.concatenate([np.full((1, 5), value), views()[0][1:]])


def with_column(value):
    p = views()[0].copy()
    p[:, 2] = value
    return p


TINY = (1e-45, 1e-38, 1e-30, 1e-25, 1e-18, 1e-10)
HARD = {
    "total collapse": collapsed(),
    "equal rows": np.full((24, 5), 0.2),
    "one-hot rows": np.eye(5)[np.arange(24) % 4],
    "all zeros": np.zeros((24, 5)),
    **{f"row of {value}": with_row(value) for value in (0, *TINY)},
    **{f"column of {value}": with_column(value) for value in (0, *TINY)},
}


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("name", [*LOSSES, "normalize"])
def test_finite_value_and_gradient(name, hard):
    x = HARD[hard].astype(np.float32)
    for other in (x, np.roll(x, 1, axis=0)):
        value, gradients = value_and_gradients(name)(x, other)
        assert np.isfinite(value) and np.isfinite(gradients).all()


def test_finite_gradient_through_softmax():
    """A cluster becomes empty in training: its weights go from tiny to exactly zero in float32."""

    @jax.vmap
    def losses(gap):
        def loss(logits):
            p = jax.nn.softmax(logits)
            return cc_cluster(p, jnp.roll(p, 1, axis=0), temperature=0.02)

        return jax.value_and_grad(loss)(jnp.log(views()[0]).at[:, 2].add(-gap))

    values, gradients = jax.jit(losses)(jnp.array([20.0, 40, 60, 68, 70, 80, 87, 90, 100, 1e4]))
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    # The cosine does not depend on the size of the cluster while the size is a normal number. Nor does the gradient.
    assert np.abs(gradients[:4, :, 2]).max(axis=1) == pytest.approx(np.abs(gradients[0, :, 2]).max(), rel=1e-2)


def test_values_of_collapsed_assignments():
    p, equal = collapsed(), np.full((24, 5), 0.2)
    assert nt_xent(p, p) == pytest.approx(np.log(2 * 24 - 1), rel=1e-6)
    assert cluster_contrast(equal, equal) == pytest.approx(np.log(2 * 5 - 1), rel=1e-6)
    # The one full column matches itself. The other eight columns have cosine 0 with all columns.
    full = np.log(1 + 8 * np.exp(-1))
    assert cluster_contrast(p, p) == pytest.approx((full + 4 * np.log(9)) / 5, rel=1e-6)


def test_an_empty_cluster_changes_only_log_k():
    """An empty cluster adds nothing to m log m. Only log k differs from the batch without its column."""
    p = with_column(0)
    expected = imbalance_loop(np.delete(p, 2, axis=1)) + np.log(5 / 4)
    assert imbalance(p) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["nt_xent", "cluster_contrast"])
def test_low_temperature_gradient(name):
    """Compares float32 with float64 if the positive pairs dominate and the loss is nearly 0."""
    rng = np.random.default_rng(5)
    if name == "nt_xent":
        a = rng.normal(size=(64, 128))
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, a + 0.3 * rng.normal(size=a.shape)))
    else:
        logits = 6 * np.eye(10)[np.arange(64) % 10]
        a, b = (softmax(logits + rng.normal(size=logits.shape)) for _ in range(2))
    _, single = value_and_gradients(name)(*(x.astype(np.float32) for x in (a, b)), temperature=0.02)
    with jax.enable_x64(True):
        value, double = value_and_gradients(name)(a, b, temperature=0.02)
    assert 0 < value < 0.01
    for index in (0, 1):
        assert_close(single[index], double[index], 1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name, dtype):
    half = [jnp.asarray(x, dtype) for x in views()]
    full = [x.astype(jnp.float32) for x in half]
    value, gradients = value_and_gradients(name)(*half)
    expected, expected_gradients = value_and_gradients(name)(*full)
    assert value.dtype == jnp.float32 and value == expected
    for gradient, exact in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_array_equal(gradient, exact.astype(dtype), strict=True)


def test_half_precision_normalize():
    assert normalize(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


# --- Devices: the value and the gradient for replicated parameters and for the rows do not depend on their number


def network_loss(names, weights, a, b, axis_name=None):
    """The sum of the losses of the outputs of a replicated network, as in training."""
    p, q = (jax.nn.softmax(x @ weights) for x in (a, b))
    losses = {**LOSSES, "masked nt_xent": masked}
    return sum(losses[name](p, q, axis_name=axis_name) for name in names.split(" + "))


def shardings():
    """The shardings of the weights and of the two views."""
    whole, rows = (NamedSharding(data_mesh(8), spec) for spec in (P(), P(AXIS)))
    return whole, rows, rows


def on_devices(rows):
    """Distributes the rows of [n, d] over the eight devices."""
    return jax.device_put(rows, shardings()[1])


def in_jit(loss, *arrays):
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*jax.device_put(arrays, shardings()))


def outside_shard_map(loss, weights, a, b, **options):
    specs = {"in_specs": (P(), P(AXIS), P(AXIS)), "out_specs": P()}
    mapped = jax.shard_map(partial(loss, axis_name=AXIS), mesh=data_mesh(8), **specs, **options)
    return jax.jit(jax.value_and_grad(mapped, (0, 1, 2)))(weights, a, b)


def per_device(loss, scale=1):
    """Gradients inside `shard_map`: `pmean` for the parameters; for the rows see the docstring of the module."""

    def step(weights, a, b):
        value, (inner, *rows) = jax.value_and_grad(partial(loss, axis_name=AXIS), (0, 1, 2))(weights, a, b)
        return value, (lax.pmean(inner, AXIS), *(x / scale for x in rows))

    return step


def on_shards(function, **options):
    specs = {"in_specs": (P(), P(AXIS), P(AXIS)), "out_specs": (P(), (P(), P(AXIS), P(AXIS)))}
    return jax.jit(jax.shard_map(function, mesh=data_mesh(8), **specs, **options))


def inside_shard_map(loss, *arrays, scale=1, **options):
    return on_shards(per_device(loss, scale), **options)(*arrays)


def blocks(x):
    return x.reshape(8, -1, x.shape[1])


def inside_pmap(loss, weights, a, b):
    mapped = jax.pmap(per_device(loss, scale=8), axis_name=AXIS, in_axes=(None, 0, 0))
    values, (inner, *rows) = mapped(weights, blocks(a), blocks(b))
    assert np.ptp(values) == 0
    return values[0], (inner[0], *(x.reshape(a.shape) for x in rows))


def outside_pmap(loss, weights, a, b):
    mapped = jax.pmap(partial(loss, axis_name=AXIS), axis_name=AXIS, in_axes=(None, 0, 0))
    gradient = jax.value_and_grad(lambda w, a, b: mapped(w, blocks(a), blocks(b))[0], (0, 1, 2))
    return jax.jit(gradient)(weights, a, b)


FORMS = {
    "jit": in_jit,
    "shard_map, gradient outside": outside_shard_map,
    "shard_map, gradient inside": inside_shard_map,
    "unchecked shard_map, gradient outside": partial(outside_shard_map, check_vma=False),
    "unchecked shard_map, gradient inside": partial(inside_shard_map, check_vma=False, scale=8),
    "pmap, gradient outside": outside_pmap,
    "pmap, gradient inside": inside_pmap,
}


def first_quick(cases, quick):
    """The cases as parameters: those of `quick` are quick tests, the others are long."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.long) for case in cases]


# Training is `jit`, and the fused losses are `shard_map`.
FORM_CASES = first_quick(FORMS, ("jit", "shard_map, gradient inside"))


def assert_any_number_of_devices(loss, arrays, form):
    """The value and the gradients of `loss` on eight devices, in one of `FORMS`, equal those on one device."""
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*arrays)
    assert jax.device_count() == 8
    actual_value, actual_gradients = FORMS[form](loss, *arrays)
    assert_close(actual_value, value, 1e-5)
    for actual, expected in zip(actual_gradients, gradients, strict=True):
        assert_close(actual, expected, 2e-5)


# With 8 rows each device has a batch of one.
@pytest.mark.parametrize("n", [24, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("form", FORM_CASES)
@pytest.mark.parametrize("names", ["nt_xent", "cluster_contrast + imbalance", "masked nt_xent"])
def test_any_number_of_devices(names, form, n):
    rng = np.random.default_rng(6)
    a = rng.normal(size=(n, 6))
    arrays = [jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(6, 5)), a, a + rng.normal(size=a.shape))]
    assert_any_number_of_devices(partial(network_loss, names), arrays, form)


COLLECTIVES = r"= (.*?) (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"


def largest_message(function):
    """Size of the largest collective in the compiled value and gradient over 1,024 rows, in numbers."""
    shapes = [(6, 5), (1024, 6), (1024, 6)]
    arrays = [jax.ShapeDtypeStruct(x, np.float32, sharding=s) for x, s in zip(shapes, shardings(), strict=True)]
    sent = re.findall(COLLECTIVES, function.lower(*arrays).compile().as_text())
    sizes = [shape.split(",") for result in sent for shape in re.findall(r"\[([\d,]*)\]", result)]
    return max(np.prod([int(size) for size in shape if size]) for shape in sizes)


@pytest.mark.parametrize("form", ["jit", "shard_map"])
@pytest.mark.parametrize("name, limit", [("cluster_contrast", 10 * 10), ("imbalance", 6 * 5), ("nt_xent", None)])
def test_cluster_losses_never_gather_the_batch(name, limit, form):
    """Cluster losses send [2k, 2k] or k sums, and the gradient of the weights. `nt_xent` must send all rows."""
    loss = partial(network_loss, name)
    gradient = jax.jit(jax.value_and_grad(loss)) if form == "jit" else on_shards(per_device(loss))
    size = largest_message(gradient)
    assert size >= 1024 if limit is None else size <= limit


# --- Misuse

FLOATS, INTS = np.ones((4, 3), np.float32), np.ones((4, 3), np.int32)
ERRORS = {
    "rows differ": ((FLOATS, FLOATS[:3]), r"\(4, 3\) and \(3, 3\)"),
    "columns differ": ((FLOATS, FLOATS[:, :2]), r"\(4, 3\) and \(4, 2\)"),
    "would broadcast": ((FLOATS, FLOATS[:1]), r"\(4, 3\) and \(1, 3\)"),
    "rank 1": ((FLOATS[0], FLOATS[0]), r"\(3,\) and \(3,\)"),
    "rank 3": ((FLOATS[None], FLOATS[None]), r"\(1, 4, 3\) and \(1, 4, 3\)"),
    "batch of 1": ((FLOATS[:1], FLOATS[:1]), r"2 or more, got \(1, 3\) and \(1, 3\)"),
    "batch of 0": ((FLOATS[:0], FLOATS[:0]), r"2 or more, got \(0, 3\) and \(0, 3\)"),
    "integers": ((INTS, INTS), r"int32 and int32 of shape \(4, 3\) and \(4, 3\)"),
    "one integer": ((FLOATS, INTS), r"float32 and int32"),
    "complex": ((FLOATS + 0j, FLOATS), r"complex64 and float32"),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("function", [nt_xent, cluster_contrast])
def test_errors_of_two_views(function, error):
    arrays, message = ERRORS[error]
    with pytest.raises(ValueError, match=f"^{function.__name__}: .*{message}"):
        function(*arrays)


@pytest.mark.parametrize("error", ["rank 1", "rank 3", "batch of 1", "integers"])
@pytest.mark.parametrize("function", [imbalance, normalize])
def test_errors_of_one_array(function, error):
    array = ERRORS[error][0][0]
    if function is normalize and error == "batch of 1":
        assert normalize(array).shape == array.shape
        return
    with pytest.raises(ValueError, match=f"^{function.__name__}: .*{re.escape(str(array.shape))}"):
        function(array)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
@pytest.mark.parametrize("function", [nt_xent, cluster_contrast])
def test_temperature_must_be_positive(function, temperature):
    with pytest.raises(ValueError, match="temperature > 0, got"):
        function(FLOATS, FLOATS, temperature=temperature)


def test_one_cluster_is_refused():
    with pytest.raises(ValueError, match=r"2 or more clusters, got \(4, 1\) and \(4, 1\)"):
        cluster_contrast(FLOATS[:, :1], FLOATS[:, :1])
