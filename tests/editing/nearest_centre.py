"""A method for these tests: soft clusters around given directions, so that every cluster is known before."""

import jax
import jax.numpy as jnp

from clustering_jax.method import Method, Objective, Phase, Spec
from clustering_jax.training.optim import make_optimizer


def build(spec: Spec, *, optimizer: dict | None = None) -> Method:
    def init(key, batch):
        width = batch["image"].shape[1]
        return {"params": {"centers": jnp.eye(spec.num_clusters, width), "sharpness": jnp.array(8.0)}}

    def logits(variables, batch):
        return variables["params"]["sharpness"] * batch["image"] @ variables["params"]["centers"].T

    def loss(variables, batch, key):
        value = -jnp.mean(jax.nn.logsumexp(logits(variables, batch), axis=1))
        return value, ({}, {"likelihood": -value})

    def embed(variables, batch):
        return batch["image"]

    def predict(variables, batch):
        return jax.nn.softmax(logits(variables, batch))

    steps = spec.epochs * spec.steps_per_epoch["train"]
    tx = make_optimizer(total_steps=steps, **(optimizer or {}))
    return Method(init, (Phase("fit", steps, (Objective(loss, tx),)),), embed, predict)
