"""A method with a few matrix products on vectors, which tests the loop without convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clustering_jax.data.base import Dataset
from clustering_jax.method import Method, Objective, Phase


def dataset(n=40, d=5, seed=0, name="toy"):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    rows = rng.normal(size=(n, d)).astype(np.float32) + 3 * np.eye(3, d, dtype=np.float32)[labels]
    return Dataset({"x": rows}, [str(i) for i in range(n)], labels, name, "all", ())


def init(key, batch):
    return {
        "params": {"w": jax.random.normal(key, (batch["x"].shape[1], 3)) * 0.1},
        "seen": {"n": jnp.zeros(())},
    }


def embed(variables, batch):
    return batch["x"] @ variables["params"]["w"]


def predict(variables, batch):
    return jax.nn.softmax(embed(variables, batch))


def loss(variables, batch, key):
    """Squared distance to noise from the key of the example, plus targets if the phase has them."""
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (3,)))(batch["index"])
    target = batch.get("target", jnp.zeros(len(noise)))
    value = jnp.mean((embed(variables, batch) - noise - target[:, None]) ** 2)
    return value, ({"seen": {"n": variables["seen"]["n"] + 1}}, {"square": value})


def targets(key, variables, infer):
    return {"target": np.asarray(infer(embed, variables)).sum(1) + float(jax.random.uniform(key))}


def method(steps=12, tx=None, *, two_phases=False, two_streams=False, whole=False):
    objectives = (Objective(loss, tx or optax.adam(0.01)),)
    phases = (Phase("one", steps, objectives),)
    if two_phases:
        phases += (Phase("two", steps, objectives, targets=targets, whole=whole),)
    if two_streams:
        phases = (Phase("other", 2, objectives, stream="other"), Phase("one", 3, objectives)) * 4
    return Method(init, phases, embed, predict)
