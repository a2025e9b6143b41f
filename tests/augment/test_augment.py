"""Compares each augmentation with PIL, SciPy, colorsys, stored results of torchvision, or a plain loop."""

import colorsys
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image
from scipy import ndimage

from clustering_jax.augment import color as C
from clustering_jax.augment import pipeline as A
from clustering_jax.augment.policies import Policy, cc_policy, digits_policy
from clustering_jax.errors import UserError
from tests.paths import FIXTURES

ORACLE = np.load(FIXTURES / "augment_torchvision.npz")
EVERYTHING = cc_policy(12, strength=1.0, blur=True)._replace(
    degrees=20.0, translate=0.1, affine_scale=(0.8, 1.2), shear=10.0
)
POLICIES = {"cc": cc_policy(16), "everything": EVERYTHING, "digits": digits_policy(16)}
KEY = jax.random.key(3)


def photos(b, h, w, c=3, seed=0):
    """Smooth uint8 images with some noise, from black to white."""
    noise = np.random.default_rng(seed).normal(size=(b, h, w, c))
    x = ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0)) * 3 + noise * 0.2
    return np.clip(128 + 90 * x, 0, 255).astype(np.uint8)


@partial(jax.jit, static_argnums=(0, 1))
def uniforms(n, count):
    return A.uniforms(KEY, jnp.arange(n), 0, count)


two_views = jax.jit(A.two_views, static_argnums=3)
adjust_colors, adjust_hue = jax.jit(C.adjust_colors), jax.jit(C.adjust_hue)
affine, affine_matrices = jax.jit(A.affine), jax.jit(A.affine_matrices)
blur = jax.jit(A.blur, static_argnums=2)
resize, crop_resize = jax.jit(A.resize, static_argnums=1), jax.jit(A.crop_resize, static_argnums=2)
crop_boxes = jax.jit(A.crop_boxes, static_argnums=(1, 2, 3, 4))


def random(function, draws, images, *settings):
    """Applies `function`, compiled, to new uniform random numbers."""
    u = uniforms(len(images), draws)
    return np.asarray(jax.jit(lambda u, x: function(u, x, *settings))(u, images))


def views(x, index, policy=EVERYTHING, key=KEY):
    return [np.asarray(v) for v in two_views(key, jnp.asarray(x), jnp.asarray(index), policy)]


class TestResampling:
    # top, left, height, width: the whole image, a pixel, odd corners. The sizes shrink, enlarge and keep the image.
    BOXES = ((0, 0, 37, 50), (3, 7, 20, 11), (30, 45, 7, 5), (12, 12, 1, 1), (5, 0, 16, 50))

    @pytest.mark.parametrize("size", [5, 16, 48])
    def test_crop_resize_equals_pillow(self, size):
        x = photos(len(self.BOXES), 37, 50)
        found = crop_resize(jnp.asarray(x), jnp.array(self.BOXES, jnp.float32), size)
        for image, (top, left, height, width), out in zip(x, self.BOXES, found, strict=True):
            crop = Image.fromarray(image).crop((left, top, left + width, top + height))
            expected = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), np.float32)
            # PIL rounds to whole levels after each of its two passes.
            np.testing.assert_allclose(255 * np.asarray(out), expected, atol=1.01)
            assert abs((255 * out - expected).mean()) < 0.3

    @pytest.mark.parametrize("size", [9, 24, 64])
    def test_resize_equals_pillow(self, size):
        x = photos(3, 24, 31)
        expected = [Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR) for i in x]
        found = resize(jnp.asarray(x), size)
        np.testing.assert_allclose(255 * found, np.stack(expected), atol=1.01)
        whole = jnp.tile(jnp.array([[0.0, 0, 24, 31]]), (3, 1))
        np.testing.assert_allclose(found, crop_resize(jnp.asarray(x), whole, size), atol=5e-6)

    def test_resize_to_the_same_size_changes_nothing(self):
        x = photos(2, 9, 9)
        np.testing.assert_array_equal(resize(jnp.asarray(x), 9), jnp.asarray(x) / jnp.float32(255))

    @pytest.mark.parametrize(("side", "kernel"), [(16, 23), (30, 23), (16, 5), (8, 23), (2, 23), (1, 23)])
    def test_blur_equals_scipy(self, side, kernel):
        x, sigma = photos(3, side, side + 3) / 255, np.array([0.1, 0.9, 2.0])
        found = blur(jnp.asarray(x, jnp.float32), jnp.asarray(sigma, jnp.float32), kernel)
        for image, s, out in zip(x, sigma, found, strict=True):
            for axis in (0, 1):
                reach = min(kernel // 2, image.shape[axis] - 1)
                taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / s) ** 2)
                image = ndimage.correlate1d(image, taps / taps.sum(), axis=axis, mode="mirror")
            np.testing.assert_allclose(out, image, atol=1e-5)

    def test_affine_equals_scipy(self):
        x, rng = photos(6, 14, 11) / 255, np.random.default_rng(1)
        matrices = np.concatenate([np.eye(2) + 0.3 * rng.normal(size=(6, 2, 2)), rng.normal(size=(6, 2, 1))], 2)
        found = affine(jnp.asarray(x, jnp.float32), jnp.asarray(matrices, jnp.float32))
        centre = (np.array([14, 11]) - 1) / 2
        for image, m, out in zip(x, matrices, found, strict=True):
            rows_first = m[::-1, [1, 0]]
            offset = centre - rows_first @ centre + m[::-1, 2]
            for channel in range(3):
                expected = ndimage.affine_transform(
                    image[..., channel], rows_first, offset, order=1, mode="grid-constant"
                )
                np.testing.assert_allclose(out[..., channel], expected, atol=1e-5)

    def test_affine_matrices_invert_shear_rotation_scale_and_shift(self):
        angle, zoom, slant, right, down = 0.4, 1.3, 0.2, 2.0, -1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forward = zoom * turn @ np.array([[1, -np.tan(slant)], [0, 1]])
        found = affine_matrices(*(jnp.array([v]) for v in (angle, zoom, slant, right, down)))[0]
        point = np.array([3.0, -2.0])
        moved = forward @ point + [right, down]
        np.testing.assert_allclose(found @ np.append(moved, 1), point, atol=1e-5)


class TestColors:
    def test_hue_equals_colorsys(self):
        x = photos(5, 6, 7) / 255
        x[0, :2] = x[0, :2, :, :1]  # grey pixels have no hue
        shift = np.array([-0.5, -0.13, 0.01, 0.3, 0.5])
        found = np.asarray(adjust_hue(jnp.asarray(x, jnp.float32), jnp.asarray(shift, jnp.float32)))
        for i, y, z in np.ndindex(5, 6, 7):
            h, s, v = colorsys.rgb_to_hsv(*x[i, y, z])
            np.testing.assert_allclose(found[i, y, z], colorsys.hsv_to_rgb((h + shift[i]) % 1, s, v), atol=2e-5)

    def test_hue_shift_0_changes_nothing(self):
        x = jnp.asarray(photos(2, 5, 5) / np.float32(255))
        np.testing.assert_array_equal(adjust_hue(x, jnp.zeros(2)), x)

    @pytest.mark.parametrize(
        ("name", "place", "factor"), [("brightness", 0, 1.7), ("contrast", 1, 0.3), ("saturation", 2, 1.9)]
    )
    @pytest.mark.parametrize("hue", [False, True])
    def test_one_adjustment_equals_torchvision(self, name, place, factor, hue):
        x = jnp.asarray(ORACLE["images"])
        factors = jnp.ones((2, 3)).at[:, place].set(factor)
        order = jnp.tile(jnp.array([2, 0, 3, 1] if hue else [2, 0, 1]), (2, 1))
        np.testing.assert_allclose(adjust_colors(x, factors, jnp.zeros(2), order), ORACLE[name], atol=2e-6)

    def test_hue_and_gray_equal_torchvision(self):
        x = jnp.asarray(ORACLE["images"])
        np.testing.assert_allclose(adjust_hue(x, jnp.full(2, -0.17)), ORACLE["hue"], atol=1e-5)
        np.testing.assert_allclose(C.grayscale(x), ORACLE["gray"], atol=1e-6)

    def test_all_four_adjustments_equal_torchvision(self):
        factors = jnp.tile(jnp.array([1.3, 1.6, 0.4]), (2, 1))
        order = jnp.tile(jnp.array([3, 0, 2, 1]), (2, 1))  # contrast, hue, saturation, brightness
        found = adjust_colors(jnp.asarray(ORACLE["images"]), factors, jnp.full(2, 0.11), order)
        np.testing.assert_allclose(found, ORACLE["order"], atol=1e-5)

    def test_every_order_equals_the_adjustments_one_by_one(self):
        orders = list(itertools.permutations(range(4)))
        x = np.repeat(photos(1, 6, 5) / np.float32(255), len(orders), 0)
        factors, shift = np.array([1.4, 0.5, 1.6], np.float32), 0.2

        def adjust(image, which):
            if which == 3:
                return np.asarray(adjust_hue(jnp.asarray(image[None]), jnp.array([shift])))[0]
            gray = image @ np.array([0.2989, 0.587, 0.114])
            other = (0, gray.mean(), gray[..., None])[which]
            return np.clip(factors[which] * image + (1 - factors[which]) * other, 0, 1).astype(np.float32)

        expected = []
        for order in orders:
            image = x[0]
            for which in np.argsort(order):
                image = adjust(image, which)
            expected.append(image)
        tiled = jnp.tile(jnp.asarray(factors), (24, 1))
        found = adjust_colors(jnp.asarray(x), tiled, jnp.full(24, shift), jnp.array(orders))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("name", ["blur", "affine"])
    def test_resampling_equals_torchvision(self, name):
        x = jnp.asarray(ORACLE["images"])
        turn = (np.deg2rad(20), 1.2, np.deg2rad(10), 2, -1)
        found = {
            "blur": lambda: blur(x, jnp.full(2, 1.3), 9),
            "affine": lambda: affine(x, affine_matrices(*(jnp.full(2, v, jnp.float32) for v in turn))),
        }[name]()
        np.testing.assert_allclose(found, ORACLE[name], atol=2e-5)


class TestDistributions:
    def test_crop_boxes_equal_torchvision(self):
        boxes = np.asarray(crop_boxes(uniforms(20000, 22), 40, 56))
        top, left, height, width = boxes.T
        np.testing.assert_array_equal(boxes, np.round(boxes))
        assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
        assert (top + height <= 40).all() and (left + width <= 56).all()
        assert (top + height == 40).any() and (left + width == 56).any()
        quantiles = np.linspace(0.02, 0.98, 25)
        measured = (height * width / (40 * 56), np.log(width / height), top, left)
        for value, expected, tolerance in zip(measured, ORACLE["crop_quantiles"], (0.02, 0.03, 1, 1), strict=True):
            np.testing.assert_allclose(np.quantile(value, quantiles), expected, atol=tolerance)

    def test_crop_area_is_uniform_if_every_try_fits(self):
        _, _, height, width = np.asarray(crop_boxes(uniforms(20000, 22), 400, 400, (0.1, 0.5))).T
        area = np.quantile(height * width / 400**2, np.linspace(0, 1, 11))
        np.testing.assert_allclose(area, np.linspace(0.1, 0.5, 11), atol=0.01)
        assert (width / height).min() > 0.74 and (width / height).max() < 1.35

    def test_ratio_is_width_over_height(self):
        _, _, height, width = np.asarray(crop_boxes(uniforms(2000, 22), 400, 400, (0.1, 0.4), (1.5, 2.0))).T
        assert (width / height).min() == pytest.approx(1.5, abs=0.02)
        assert (width / height).max() == pytest.approx(2.0, abs=0.02)

    @pytest.mark.parametrize(("shape", "name"), [((10, 60), "fallback"), ((60, 11), "fallback_tall")])
    def test_impossible_boxes_fall_back_to_the_centre(self, shape, name):
        boxes = crop_boxes(uniforms(10, 22), *shape, (0.6, 1.0))
        np.testing.assert_array_equal(boxes, np.tile(ORACLE[name], (10, 1)))

    def test_full_square_scale_and_ratio_is_the_whole_image(self):
        boxes = crop_boxes(uniforms(10, 22), 17, 17, (1.0, 1.0), (1.0, 1.0))
        np.testing.assert_array_equal(boxes, np.tile([0, 0, 17, 17], (10, 1)))

    def test_flip_rate(self):
        x = jnp.tile(jnp.array([0.0, 1.0])[None, None, :, None], (10000, 1, 1, 1))
        flipped = random(A.horizontal_flip, 1, x, 0.3)[:, 0, 0, 0]
        assert set(flipped) == {0, 1} and abs(flipped.mean() - 0.3) < 0.02

    def test_gray_rate(self):
        x = jnp.tile(jnp.array([0.9, 0.1, 0.4]), (10000, 1, 1, 1))
        out = random(A.random_grayscale, 1, x, 0.2)[:, 0, 0]
        gray = (out == out[:, :1]).all(1)
        assert abs(gray.mean() - 0.2) < 0.02
        np.testing.assert_array_equal(out[~gray], np.asarray(x)[~gray, 0, 0])

    def test_jitter_and_blur_rates(self):
        x = jnp.asarray(photos(1, 4, 4) / np.float32(255))
        x = jnp.tile(x, (4000, 1, 1, 1))
        for out, p in (
            (random(A.color_jitter, 9, x, 0.4, 0.4, 0.4, 0.1, 0.8), 0.8),
            (random(A.gaussian_blur, 2, x, 0.5, 3, (1.0, 2.0)), 0.5),
        ):
            changed = (np.asarray(out) != np.asarray(x)).any((1, 2, 3))
            assert abs(changed.mean() - p) < 0.03

    def test_brightness_factors_are_uniform(self):
        x = jnp.full((10000, 1, 1, 3), 0.4)
        out = random(A.color_jitter, 9, x, 1.2)[:, 0, 0, 0] / 0.4
        np.testing.assert_allclose(np.quantile(out, [0, 0.25, 0.5, 0.75, 1]), [0, 0.55, 1.1, 1.65, 2.2], atol=0.05)

    @pytest.mark.parametrize("n", [3, 4])
    def test_orders_are_uniform(self, n):
        orders = np.asarray(A.ranks(jax.random.uniform(KEY, (24000, n))))
        assert (np.sort(orders, 1) == np.arange(n)).all()
        _, counts = np.unique(orders, axis=0, return_counts=True)
        expected = 24000 / np.prod(np.arange(1, n + 1))
        assert len(counts) == np.prod(np.arange(1, n + 1))
        assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()

    def test_ties_still_give_a_permutation(self):
        np.testing.assert_array_equal(A.ranks(jnp.array([[0.5, 0.5, 0.1, 0.5]])), [[1, 2, 0, 3]])

    def test_affine_stays_within_its_ranges(self):
        spot = jnp.zeros((2000, 21, 21, 1)).at[:, 10, 10].set(1.0)
        moved = random(A.random_affine, 5, spot, 0.0, 0.2)[..., 0]
        assert np.allclose(moved.sum((1, 2)), 1, atol=1e-4)
        where = [(moved * axis).sum((1, 2)) - 10 for axis in np.mgrid[:21, :21]]
        for shift in where:
            assert abs(shift).max() <= 4.2 + 1e-3 and abs(shift).max() > 4 and abs(shift.mean()) < 0.2
        assert abs(np.corrcoef(where)[0, 1]) < 0.1


class TestDeterminism:
    X, INDEX = photos(16, 20, 20), np.arange(100, 116)

    def test_results_are_bitwise_independent_of_the_other_images_and_their_order(self):
        order = np.random.default_rng(0).permutation(16)
        others = photos(16, 20, 20, seed=1)
        mixed, index = (
            np.concatenate([others[:10], self.X[4:10]]),
            np.concatenate([np.arange(10), self.INDEX[4:10]]),
        )
        whole = views(self.X, self.INDEX)
        for a, b in zip(whole, views(self.X[order], self.INDEX[order]), strict=True):
            np.testing.assert_array_equal(a[order], b)
        for a, b in zip(whole, views(mixed, index), strict=True):
            np.testing.assert_array_equal(a[4:10], b[10:])

    @pytest.mark.parametrize("n", [1, 5])
    def test_batch_size_does_not_matter(self, n):
        # Another shape gives another program, whose sums may be rounded in another order.
        for a, b in zip(views(self.X, self.INDEX), views(self.X[3 : 3 + n], self.INDEX[3 : 3 + n]), strict=True):
            np.testing.assert_allclose(a[3 : 3 + n], b, atol=5e-6)

    def test_random_numbers_are_bitwise_independent_of_the_batch_size(self):
        np.testing.assert_array_equal(uniforms(64, 40)[:3], uniforms(3, 40))

    def test_views_epochs_and_examples_differ(self):
        x = np.repeat(self.X[:1], 16, 0)
        a, b = views(x, self.INDEX)
        other, _ = views(x, self.INDEX, key=jax.random.fold_in(KEY, 1))
        for first, second in ((a, b), (a, other), (a[:-1], a[1:])):
            assert (abs(first - second).max((1, 2, 3)) > 0.01).all()

    def test_two_views_calls_augment_twice(self):
        run = jax.jit(A.augment, static_argnums=4)
        for view, expected in enumerate(views(self.X, self.INDEX)):
            np.testing.assert_allclose(run(KEY, self.X, self.INDEX, view, EVERYTHING), expected, atol=5e-6)

    def test_eight_devices_equal_one_and_do_not_communicate(self):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        split = NamedSharding(mesh, PartitionSpec("data"))
        key = jax.device_put(KEY, NamedSharding(mesh, PartitionSpec()))
        x, index = jax.device_put(self.X, split), jax.device_put(self.INDEX, split)
        compiled = two_views.lower(key, x, index, EVERYTHING).compile()
        for one, eight in zip(views(self.X, self.INDEX), compiled(key, x, index), strict=True):
            assert eight.sharding.is_equivalent_to(split, 4)
            np.testing.assert_allclose(eight, one, atol=5e-6)
        text = compiled.as_text()
        assert not [c for c in ("all-reduce", "all-gather", "all-to-all", "collective-permute") if c in text]


class TestPolicies:
    @pytest.mark.parametrize(
        ("name", "channels", "source"),
        [("cc", 3, (40, 29)), ("cc", 1, (16, 16)), ("digits", 1, (8, 8)), ("everything", 3, (2, 5))],
    )
    def test_range_shape_and_finite(self, name, channels, source):
        policy = POLICIES[name]
        x = photos(8, *source, channels)
        x[0], x[1] = 0, 255
        for out in views(x, np.arange(8), policy):
            assert out.shape == (8, policy.size, policy.size, channels) and out.dtype == np.float32
            assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1

    def test_uint8_and_float_agree(self):
        x, index = TestDeterminism.X, TestDeterminism.INDEX
        for a, b in zip(views(x, index), views(x / np.float32(255), index), strict=True):
            np.testing.assert_allclose(a, b, atol=5e-6)

    def test_empty_policy_is_a_resize(self):
        x = photos(4, 20, 31)
        np.testing.assert_array_equal(views(x, np.arange(4), Policy(9))[0], resize(x, 9))

    def test_grey_images_take_brightness_and_contrast(self):
        x = jnp.asarray(photos(50, 8, 8, 1) / np.float32(255))
        out = random(A.color_jitter, 9, x, 0.4, 0.4, 0.4, 0.1)
        assert (np.asarray(out) != np.asarray(x)).any((1, 2, 3)).all()
        np.testing.assert_array_equal(random(A.color_jitter, 9, x, 0.0, 0.0, 0.4, 0.1), x)
        np.testing.assert_array_equal(random(A.random_grayscale, 1, x, 1.0), x)

    def test_cc_policy_equals_the_paper(self):
        policy = cc_policy(224, strength=1.0, blur=True)
        assert (policy.jitter, policy.jitter_p, policy.gray_p, policy.flip) == (
            (0.8, 0.8, 0.8, 0.2),
            0.8,
            0.2,
            0.5,
        )
        assert (policy.blur_p, policy.blur_kernel, policy.blur_sigma) == (0.5, 23, (0.1, 2.0))
        assert (policy.crop_scale, policy.crop_ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
        assert cc_policy(32).blur_p == 0 and digits_policy(16).flip == 0

    @pytest.mark.parametrize(
        "change",
        [
            {"size": 0},
            {"flip": 1.5},
            {"gray_p": -0.1},
            {"crop_scale": (0.5, 1.2)},
            {"crop_ratio": (2.0, 1.0)},
            {"blur_sigma": (0.0, 1.0)},
            {"blur_kernel": 4},
            {"jitter": (0.1, 0.1, 0.1, 0.6)},
            {"jitter": (-0.1, 0.1, 0.1, 0.1)},
            {"jitter": (0.1, 0.1, 0.1)},
        ],
        ids=str,
    )
    def test_bad_settings_are_named(self, change):
        with pytest.raises(UserError, match=next(iter(change))) as error:
            A.augment(KEY, jnp.zeros((2, 8, 8, 3)), jnp.arange(2), 0, EVERYTHING._replace(**change))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("images", "index", "shown"),
        [
            (jnp.zeros((2, 8, 8)), jnp.arange(2), r"\(2, 8, 8\)"),
            (jnp.zeros((2, 8, 8, 3), jnp.int32), jnp.arange(2), "int32"),
            (jnp.zeros((2, 8, 8, 3)), jnp.arange(3), r"\(3,\).*\(2, 8, 8, 3\)"),
        ],
    )
    def test_bad_arrays_are_refused(self, images, index, shown):
        with pytest.raises(ValueError, match=shown):
            A.augment(KEY, images, index, 0, EVERYTHING)


@pytest.mark.long
def test_ten_crops_are_corners_centre_and_their_mirrors():
    images = photos(3, 16, 24)
    crops = np.asarray(A.ten_crops(images, 14))
    assert crops.shape == (3, 10, 14, 14, 3)
    x = images / np.float32(255)
    for i, (top, left) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3), (1, 1)]):
        cut = x[:, top : top + 14, left : left + 21]
        np.testing.assert_allclose(crops[:, i], A.resize(cut, 14), atol=1e-5)
        np.testing.assert_array_equal(crops[:, i + 5], crops[:, i, :, ::-1])
