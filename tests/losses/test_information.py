"""Compares information-theoretic losses with the authors' values and textbook loops; tests symmetries and devices."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import gaussian_kl, info_nce, jsd, mutual_information, nwj, posterior_skl, prior_kl
from tests.losses.test_contrastive import (
    COLUMNS,
    FORM_CASES,
    HARD,
    ROWS,
    assert_any_number_of_devices,
    assert_close,
    assert_same_on_a_duplicated_batch,
    largest_message,
    on_devices,
    on_shards,
    per_device,
    slope,
    softmax,
    views,
)
from tests.paths import FIXTURES

FIXTURES = np.load(FIXTURES / "information.npz")
BOUNDS = {"info_nce": info_nce, "nwj": nwj, "jsd": jsd}


def widths(x):
    """Maps any numbers to standard deviations."""
    return 0.1 + abs(x)


def two_posteriors(a, b, axis_name=None):
    return posterior_skl(a, widths(b), b, widths(a), axis_name=axis_name)


LOSSES = {
    "symmetric": mutual_information,
    "plain": partial(mutual_information, symmetrize=False),
    "rectangular": lambda p, q, axis_name=None: mutual_information(p, q[:, :2], symmetrize=False, axis_name=axis_name),
    "masked": lambda p, q, axis_name=None: mutual_information(p, q, where=p[:, 0] < p[:, 1], axis_name=axis_name),
    "prior_kl": prior_kl,
    "gaussian_kl": lambda a, b, axis_name=None: gaussian_kl(a, widths(b), axis_name=axis_name),
    "posterior_skl": two_posteriors,
}
FUNCTIONS = LOSSES | {name: lambda a, b, f=f: f(a @ b.T) for name, f in BOUNDS.items()}


@cache
def value_and_gradients(name):
    """Compiled once for each shape and type; NumPy out."""
    compiled = jax.jit(jax.value_and_grad(FUNCTIONS[name], (0, 1)))
    return lambda *arrays: jax.device_get(compiled(*arrays))


# --- Textbook loops


def information_loop(p, q, symmetrize=True):
    joint = sum(np.outer(x, y) for x, y in zip(p, q, strict=True))
    joint = (joint + joint.T) / 2 if symmetrize else joint
    joint = joint / joint.sum()
    value = 0.0
    for row in joint:
        for j, cell in enumerate(row):
            value += cell * np.log(cell / (row.sum() * joint[:, j].sum())) if cell > 0 else 0
    return value


def masked_loop(p, q):
    rows = p[:, 0] < p[:, 1]
    return information_loop(p[rows], q[rows])


def prior_kl_loop(z, prior):
    terms = [
        s * np.log(s / t) for x, y in zip(softmax(z), softmax(prior), strict=True) for t, s in zip(x, y, strict=True)
    ]
    return sum(terms) / z.size


def normal_kl(mu_a, sigma_a, mu_b, sigma_b):
    """Sum over d of the KL divergence of normal distributions."""
    spread = (sigma_a**2 + (mu_a - mu_b) ** 2) / (2 * sigma_b**2)
    return np.sum(np.log(sigma_b / sigma_a) + spread - 0.5)


def gaussian_kl_loop(a, b):
    return np.mean([normal_kl(mu, widths(sigma), 0.0, 1.0) for mu, sigma in zip(a, b, strict=True)])


def posterior_skl_loop(a, b):
    pairs = [((x, widths(y)), (y, widths(x))) for x, y in zip(a, b, strict=True)]
    return np.mean([(normal_kl(*one, *other) + normal_kl(*other, *one)) / 2 for one, other in pairs])


def softplus(x):
    return np.log(1 + np.exp(x))


def bound_loop(of_pair, of_other):
    """Mean of one function over the pairs, minus the mean of the other function over all other entries."""

    def loop(a, b):
        n = len(a)
        pairs = [of_pair(a[i] @ b[i]) for i in range(n)]
        others = [of_other(a[i] @ b[j]) for i in range(n) for j in range(n) if i != j]
        return np.mean(pairs) - np.mean(others)

    return loop


def info_nce_loop(a, b):
    rows = [a[i] @ b[i] - np.log(np.mean([np.exp(a[i] @ y) for y in b])) for i in range(len(a))]
    return np.mean(rows)


LOOPS = {
    "symmetric": information_loop,
    "plain": partial(information_loop, symmetrize=False),
    "rectangular": lambda p, q: information_loop(p, q[:, :2], symmetrize=False),
    "masked": masked_loop,
    "prior_kl": prior_kl_loop,
    "gaussian_kl": gaussian_kl_loop,
    "posterior_skl": posterior_skl_loop,
    "info_nce": info_nce_loop,
    "nwj": bound_loop(lambda f: f, lambda f: np.exp(f - 1)),
    "jsd": bound_loop(lambda f: -softplus(-f), softplus),
}


@pytest.mark.parametrize("n, k", [(3, 4), (16, 10)])
@pytest.mark.parametrize("name", LOOPS)
def test_equals_the_loop(name, n, k):
    arrays = views(n, k)
    expected = LOOPS[name](*arrays)
    value, _ = value_and_gradients(name)(*(x.astype(np.float32) for x in arrays))
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    with jax.enable_x64(True):
        value, gradients = value_and_gradients(name)(*arrays)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-13)
    for directions in np.random.default_rng(7).normal(size=(4, 2, n, k)):
        along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
        assert along == pytest.approx(slope(LOOPS[name], arrays, directions, 1e-6), rel=1e-6, abs=1e-8)


# --- The authors' code, and values worked out from its formulas


@pytest.mark.parametrize("case", sorted({key.rsplit("/", 1)[0] for key in FIXTURES}))
@pytest.mark.parametrize("x64, value_tolerance, gradient_tolerance", [(False, 1e-5, 1e-4), (True, 1e-10, 1e-10)])
def test_equals_the_code_of_the_authors(case, x64, value_tolerance, gradient_tolerance):
    """The loss of the authors is the negative mutual information."""
    name, sign = ("prior_kl", 1) if "prior_kl" in case else ("symmetric", -1)
    with jax.enable_x64(x64):
        arrays = [jnp.asarray(FIXTURES[f"{case}/in{i}"]) for i in (0, 1)]
        value, gradients = value_and_gradients(name)(*arrays)
        assert value.dtype == (jnp.float64 if x64 else jnp.float32)
        assert_close(sign * value, FIXTURES[f"{case}/value"], value_tolerance)
        for i, gradient in enumerate(gradients):
            assert_close(sign * gradient, FIXTURES[f"{case}/grad{i}"], gradient_tolerance)


def test_known_values():
    i, j = np.mgrid[:6, :3]
    p, q = softmax(2 * np.sin(1 + 0.7 * i + 1.3 * j)), softmax(2 * np.cos(0.5 + 0.9 * i - 0.8 * j))
    assert mutual_information(p, q) == pytest.approx(0.0885193, abs=1e-6)
    assert mutual_information(p, p) == pytest.approx(0.1790929, abs=1e-6)
    z, prior = 1.5 * np.sin(1 + 0.7 * i + 1.3 * j), np.cos(0.5 + 0.9 * i - 0.8 * j)
    assert prior_kl(z, prior) == pytest.approx(0.2254068, abs=1e-6)


ONE_HOT = np.eye(3)[np.arange(6) % 3]
LABELS = {
    "the same": ([0, 1, 2], True, np.log(3)),
    "two swapped": ([1, 0, 2], True, np.log(3)),
    "a cycle": ([1, 2, 0], True, 0.4054651),
    "a cycle, not symmetrised": ([1, 2, 0], False, np.log(3)),
    "a column dropped": ([0, 1], False, np.log(3) / 3 + 2 / 3 * np.log(3 / 2)),
}


@pytest.mark.parametrize("case", LABELS)
def test_one_hot_labels(case):
    columns, symmetrize, expected = LABELS[case]
    # The rows of a dropped column go to the last remaining column, which gives the labels of a coarser clustering.
    q = ONE_HOT[:, columns] + (1 - ONE_HOT[:, columns].sum(1, keepdims=True)) * np.eye(len(columns))[-1]
    assert mutual_information(ONE_HOT, q, symmetrize=symmetrize) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["symmetric", "plain", "rectangular"])
def test_independent_assignments_give_zero(name):
    """Every row of one side is paired with every row of the other; or all rows of one side are equal."""
    p, q = views(8)
    every = np.repeat(p, 8, axis=0), np.tile(q, (8, 1))
    expected = LOOPS[name](*every) if name == "symmetric" else 0  # The symmetrised joint is not a product.
    assert value_and_gradients(name)(*every)[0] == pytest.approx(expected, abs=1e-6)
    for uniform in (np.full((8, 5), 0.2), np.tile(p[:1], (8, 1))):
        assert value_and_gradients(name)(uniform, uniform)[0] == pytest.approx(0, abs=1e-6)


def test_divergences_of_equal_arguments_are_zero():
    mu, sigma = views()
    assert gaussian_kl(jnp.zeros((4, 3)), jnp.ones((4, 3))) == 0
    assert posterior_skl(mu, sigma, mu, sigma) == 0
    assert prior_kl(mu + 3, mu) == pytest.approx(0, abs=1e-6)


# --- Symmetries: function(T x) == function(x), and T transforms the gradient

SYMMETRIES = {
    "rows permuted": lambda a, b: (a[ROWS], b[ROWS]),
    "columns permuted": lambda a, b: (a[:, COLUMNS], b[:, COLUMNS]),
    "sides swapped": lambda a, b: (b, a),
    "one side relabelled": lambda a, b: (a, b[:, COLUMNS]),
}
EVERY = {"rows permuted", "columns permuted"}
HAS = {
    "symmetric": EVERY | {"sides swapped"},
    "plain": {*SYMMETRIES},
    "prior_kl": EVERY,
    "gaussian_kl": EVERY | {"one side relabelled"},
    "posterior_skl": EVERY | {"sides swapped"},
    "info_nce": EVERY,
    "nwj": EVERY | {"sides swapped"},
    "jsd": EVERY | {"sides swapped"},
}


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("name", HAS)
def test_symmetry(name, symmetry):
    function, move = value_and_gradients(name), SYMMETRIES[symmetry]
    with jax.enable_x64(True):
        value, gradients = function(*views())
        moved_value, moved_gradients = function(*move(*views()))
        if symmetry not in HAS[name]:
            assert abs(value - moved_value) > 1e-4 * abs(value)
            return
        assert_close(moved_value, value, 1e-12)
        for moved, expected in zip(moved_gradients, move(*gradients), strict=True):
            assert_close(moved, expected, 1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_duplicated_batch(name):
    assert_same_on_a_duplicated_batch(value_and_gradients(name))


# --- Excluded rows


def test_missing_rows_may_hold_anything():
    p, q = views()
    counts = np.arange(24) % 3 > 0
    broken = np.where(counts[:, None], q, np.nan)
    function = jax.jit(jax.value_and_grad(partial(mutual_information, where=counts), (0, 1)))
    value, gradients = function(jnp.asarray(p), jnp.asarray(broken))
    assert value == pytest.approx(information_loop(p[counts], q[counts]), rel=1e-5)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and not gradient[~counts].any() and gradient[counts].all()


@pytest.mark.long
def test_all_rows_excluded():
    value, gradient = jax.value_and_grad(mutual_information)(*views(), where=np.zeros(24, bool))
    assert value == pytest.approx(0, abs=1e-6) and not gradient.any()


# --- Bounds

N = 64


@cache
def bound_and_gradient(name):
    """Compiled once for each shape and type."""
    return jax.jit(jax.value_and_grad(BOUNDS[name]))


def bounds_of(scores):
    return {name: bound_and_gradient(name)(scores)[0] for name in BOUNDS}


def test_bounds_for_equal_scores():
    zeros, ones = bounds_of(np.zeros((N, N), np.float32)), bounds_of(np.ones((N, N), np.float32))
    assert zeros["info_nce"] == pytest.approx(0, abs=1e-6) and ones["info_nce"] == pytest.approx(0, abs=1e-6)
    assert zeros["nwj"] == pytest.approx(-np.exp(-1), rel=1e-6) and ones["nwj"] == pytest.approx(0, abs=1e-6)
    assert zeros["jsd"] == pytest.approx(-2 * np.log(2), rel=1e-6)


@pytest.mark.parametrize("size", [80, 1e4])
def test_largest_values_for_perfect_scores(size):
    """With high scores for pairs, the largest values are log n, no limit, and 0. Nothing overflows."""
    scores = np.float32(size * (2 * np.eye(N) - 1))
    ceilings = {"info_nce": np.log(N), "nwj": size, "jsd": 0}
    assert bounds_of(scores) == pytest.approx(ceilings, rel=1e-6, abs=1e-6)
    for name in BOUNDS:
        assert np.isfinite(bound_and_gradient(name)(scores)[1]).all()


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_for_the_worst_scores(name):
    """If other scores are above those of the pairs, the values are finite, and the gradient corrects the scores."""
    value, gradient = bound_and_gradient(name)(np.float32(40 * (1 - 2 * np.eye(N))))
    assert np.isfinite(value) and value < -40
    assert (np.diagonal(gradient) > 0).all() and (gradient[~np.eye(N, dtype=bool)] < 0).all()


@pytest.mark.long
def test_bounds_of_gaussians():
    """For correlated normal variables, each bound is tight with its best critic and lower with another one."""
    rho, n = 0.8, 1000
    truth = -np.log(1 - rho**2) / 2
    x, noise = np.random.default_rng(8).normal(size=(2, n))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    ratio = truth - (y - rho * x[:, None]) ** 2 / (1 - rho**2) / 2 + y**2 / 2  # log p(y | x) / p(y)
    best, above, below, other = (bounds_of(np.float32(x)) for x in (ratio, ratio + 1, ratio - 1, ratio / 2))
    assert best["info_nce"] == pytest.approx(truth, abs=0.05) and other["info_nce"] < best["info_nce"]
    assert above["nwj"] == pytest.approx(truth, abs=0.05) and best["nwj"] < above["nwj"]
    assert best["jsd"] > max(above["jsd"], below["jsd"], other["jsd"])


def test_low_temperature_gradient():
    """Compares float32 with float64 if the scores of the pairs are far above the others."""
    scores = 15 * np.eye(N) + np.random.default_rng(5).normal(size=(N, N))
    _, single = bound_and_gradient("info_nce")(scores.astype(np.float32))
    with jax.enable_x64(True):
        assert_close(single, bound_and_gradient("info_nce")(scores)[1], 1e-4)


# --- Hard inputs


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_finite_value_and_gradient(name, hard):
    x = HARD[hard].astype(np.float32)
    for other in (x, np.roll(x, 1, axis=0)):
        value, gradients = value_and_gradients(name)(x, other)
        assert np.isfinite(value) and np.isfinite(gradients).all()


@pytest.mark.parametrize("sigma", [0.0, 1e-45, 1e-20, 1e-7])
def test_zero_standard_deviations_give_finite_values(sigma):
    ones, narrow = jnp.ones((4, 3)), jnp.full((4, 3), sigma)
    for arrays in ((ones, narrow), (ones, narrow, 0 * ones, ones), (ones, narrow, 0 * ones, narrow)):
        function = gaussian_kl if len(arrays) == 2 else posterior_skl
        value, gradients = jax.value_and_grad(function, tuple(range(len(arrays))))(*arrays)
        assert value > 1 and np.isfinite(value) and np.isfinite(gradients).all()


def test_values_of_collapsed_assignments():
    collapsed = HARD["total collapse"]
    for symmetrize in (True, False):
        assert mutual_information(collapsed, collapsed, symmetrize=symmetrize) == pytest.approx(0, abs=1e-6)


HALVES = {
    mutual_information: 2,
    partial(mutual_information, symmetrize=False): 2,
    prior_kl: 2,
    gaussian_kl: 2,
    posterior_skl: 4,
    **dict.fromkeys(BOUNDS.values(), 1),
}


@pytest.mark.parametrize("function", HALVES)
def test_half_precision_is_computed_in_float32(function):
    arrays = [x[:5] for seed in (0, 1) for x in views(seed=seed)][: HALVES[function]]
    half = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
    compiled = jax.jit(jax.value_and_grad(function, tuple(range(len(half)))))
    value, gradients = compiled(*half)
    expected, exact = compiled(*(x.astype(jnp.float32) for x in half))
    assert value.dtype == jnp.float32 and value == expected
    for gradient, full in zip(gradients, exact, strict=True):
        np.testing.assert_array_equal(gradient, full.astype(jnp.bfloat16), strict=True)


# --- Devices: the value and the gradient for replicated parameters and for the rows do not depend on their number


def network_loss(names, weights, a, b, axis_name=None):
    """The sum of the losses of the outputs of a replicated network, as in training."""
    p, q = (jax.nn.softmax(x @ weights) for x in (a, b))
    return sum(LOSSES[name](p, q, axis_name=axis_name) for name in names.split(" + "))


@pytest.mark.parametrize("form", FORM_CASES)
@pytest.mark.parametrize("names", ["symmetric + masked", "prior_kl + gaussian_kl + posterior_skl"])
def test_any_number_of_devices(names, form):
    rng = np.random.default_rng(6)
    a = rng.normal(size=(24, 6))
    arrays = [jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(6, 5)), a, a + rng.normal(size=a.shape))]
    assert_any_number_of_devices(partial(network_loss, names), arrays, form)


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_of_scores_on_any_number_of_devices(name):
    scores = 3 * np.random.default_rng(7).normal(size=(24, 24)).astype(np.float32)
    function = jax.jit(jax.value_and_grad(BOUNDS[name]))
    for actual, expected in zip(function(on_devices(scores)), function(scores), strict=True):
        assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize("form", ["jit", "shard_map"])
def test_mutual_information_never_gathers_the_batch(form):
    """Mutual information sends [k, k] sums and the gradient of the [6, 5] weights."""
    loss = partial(network_loss, "symmetric")
    gradient = jax.jit(jax.value_and_grad(loss)) if form == "jit" else on_shards(per_device(loss))
    assert largest_message(gradient) <= 6 * 5


# --- Misuse

FLOATS, INTS = np.ones((4, 3), np.float32), np.ones((4, 3), np.int32)
ERRORS = {
    "rows differ": ((FLOATS, FLOATS[:3]), r"\(4, 3\) and \(3, 3\)"),
    "columns differ": ((FLOATS, FLOATS[:, :2]), r"\(4, 3\) and \(4, 2\)"),
    "rank 1": ((FLOATS[0], FLOATS[0]), r"\(3,\) and \(3,\)"),
    "empty": ((FLOATS[:0], FLOATS[:0]), r"or more, got \(0, 3\) and \(0, 3\)"),
    "no column": ((FLOATS[:, :0], FLOATS[:, :0]), r"or more, got \(4, 0\) and \(4, 0\)"),
    "integers": ((INTS, INTS), r"int32 and int32 of shape \(4, 3\) and \(4, 3\)"),
    "one integer": ((FLOATS, INTS), r"float32 and int32"),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("function", [mutual_information, prior_kl, gaussian_kl])
def test_errors_of_two_arrays(function, error):
    arrays, message = ERRORS[error]
    with pytest.raises(ValueError, match=f"^{function.__name__}: .*{message}"):
        function(*arrays)


def test_errors_of_posteriors():
    with pytest.raises(ValueError, match=r"^posterior_skl: .*\(4, 3\) and \(4, 3\) and \(4, 3\) and \(4, 2\)"):
        posterior_skl(FLOATS, FLOATS, FLOATS, FLOATS[:, :2])


@pytest.mark.parametrize("arrays", [(FLOATS, FLOATS[:3]), (FLOATS[0], FLOATS), (FLOATS, INTS), (FLOATS[:0],) * 2])
def test_errors_of_a_rectangular_table(arrays):
    assert mutual_information(FLOATS, FLOATS[:, :2], symmetrize=False).shape == ()
    with pytest.raises(ValueError, match=r"^mutual_information: "):
        mutual_information(*arrays, symmetrize=False)


@pytest.mark.parametrize("where", [np.ones(3, bool), np.ones((4, 1), bool), np.ones(4), True])
def test_errors_of_where(where):
    with pytest.raises(ValueError, match=r"`where` bool \[n\], got .* for \(4, 3\) and \(4, 3\)"):
        mutual_information(FLOATS, FLOATS, where=where)


@pytest.mark.parametrize("scores", [FLOATS, FLOATS[0], FLOATS[:1, :1], FLOATS[:0, :0], INTS[:3]])
@pytest.mark.parametrize("bound", BOUNDS.values())
def test_errors_of_scores(bound, scores):
    shape = ", ".join(map(str, scores.shape))
    with pytest.raises(ValueError, match=rf"^{bound.__name__}: .*\({shape}"):
        bound(scores)


@pytest.mark.parametrize("n, k, scale", [(20_000, 10, 1), (2000, 300, 1), (5000, 100, 0.1), (2000, 20, 8)])
@pytest.mark.parametrize("symmetrize", [True, False])
def test_the_value_of_mutual_information_in_float32(n, k, scale, symmetrize):
    """Within 1e-5 of float64, also where the value is small: the logarithms cancelled there."""
    rng = np.random.default_rng(0)
    logits = scale * rng.normal(size=(n, k))
    p, q = (np.exp(x - x.max(1, keepdims=True)) for x in (logits, logits + scale * rng.normal(size=(n, k))))
    p, q = ((x / x.sum(1, keepdims=True)).astype(np.float32) for x in (p, q))
    joint = p.T.astype(np.float64) @ q
    joint = (joint + joint.T) / 2 if symmetrize else joint
    joint /= joint.sum()
    exact = np.sum(joint * np.log(joint / joint.sum(1, keepdims=True) / joint.sum(0)))
    assert float(mutual_information(jnp.asarray(p), jnp.asarray(q), symmetrize=symmetrize)) == pytest.approx(
        exact, rel=1e-5
    )
