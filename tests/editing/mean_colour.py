"""A method for these tests: soft clusters of images around the pure colours, by the mean of their pixels."""

import jax
import jax.numpy as jnp

from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.training.optim import make_optimizer


def build(spec: Spec, *, optimizer: dict | None = None) -> Method:
    def init(key, batch):
        return {"params": {"centers": jnp.eye(spec.num_clusters, 3), "sharpness": jnp.array(8.0)}}

    def embed(variables, batch):
        return jnp.mean(batch["image"].astype(jnp.float32) / 255, axis=(1, 2))

    def logits(variables, batch):
        return variables["params"]["sharpness"] * embed(variables, batch) @ variables["params"]["centers"].T

    def loss(variables, batch, key):
        value = -jnp.mean(jax.nn.logsumexp(logits(variables, batch), axis=1))
        return value, ({}, {"likelihood": -value})

    def predict(variables, batch):
        return jax.nn.softmax(logits(variables, batch))

    steps = spec.epochs * spec.steps_per_epoch["train"]
    tx = make_optimizer(total_steps=steps, **(optimizer or {}))
    return Method(init, (Phase("fit", steps, (Objective(loss, tx),)),), embed, predict)
