"""What requests may ask for and what the server answers, as the schemas of ``/openapi.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from clustering_jax.errors import nearest
from clustering_jax.serving.artefact import Outputs
from clustering_jax.serving.inputs import Inputs
from clustering_jax.serving.requests import FORM, JSON, NUMPY


class NoOptions(BaseModel, extra="forbid"):
    """The query parameters of an endpoint that takes none."""


class Options(BaseModel, extra="forbid"):
    """The query parameters of ``/predict``."""

    top_k: int = Field(
        0, ge=0, description="Answer only the most probable clusters, this many; 0 answers all probabilities."
    )
    embeddings: bool = Field(False, description="Answer the embedding of each row too.")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One line.")


class Ready(BaseModel):
    """The server accepts requests."""

    status: str = "ready"


class Health(BaseModel):
    """The model and the limits of the server."""

    status: str = "ok"
    name: str = Field(description="Name of the model: --name, or the name of its directory.")
    digest: str = Field(description="SHA-256 of the model's file SHA256SUMS, which covers all its files.")
    version: str = Field(description="Version of clustering_jax that answers.")
    exported_by: str = Field(description="Version of clustering_jax that exported the model.")
    method: str
    clusters: int
    input: dict[str, Any] = Field(description="Dtype and shape of each array that the model takes.")
    max_rows: int
    max_bytes: int


class Choice(BaseModel):
    """One of the most probable clusters of a row."""

    cluster: int
    probability: float
    names: list[str] | None = Field(None, description="The words that name the cluster, if the method names clusters.")


class Prediction(BaseModel):
    """One entry in each list for each row or file, in the order of the request."""

    files: list[str] | None = Field(None, description="The names of the files of a form.")
    clusters: list[int]
    probabilities: list[list[float]] | None = Field(None, description="Absent if top_k is given.")
    top: list[list[Choice]] | None = Field(None, description="The most probable clusters, the first one first.")
    embeddings: list[list[float]] | None = None
    names: list[list[str]] | None = Field(None, description="The words that name the cluster of each row.")


def prediction(outputs: Outputs, options: Options, names: list[list[str]], files: list[str]) -> dict[str, Any]:
    """The answer for some rows, as JSON data of the schema `Prediction`.

    Args:
      outputs: what the model computed from the rows.
      options: what the request asks for.
      names: the words that name each cluster; may be empty.
      files: the name of each file of a form; empty for other requests.
    """
    probabilities = outputs.probabilities
    clusters = probabilities.argmax(1).tolist()
    answer: dict[str, Any] = {"files": files} if files else {}
    answer["clusters"] = clusters
    if options.top_k:
        answer["top"] = [_top(row, options.top_k, names) for row in probabilities]
    else:
        answer["probabilities"] = probabilities.tolist()
    if options.embeddings:
        answer["embeddings"] = outputs.embeddings.tolist()
    return {**answer, **({"names": [names[cluster] for cluster in clusters]} if names else {})}


def _top(row: np.ndarray, count: int, names: list[list[str]]) -> list[dict[str, Any]]:
    order = np.argsort(-row, kind="stable")[:count].tolist()
    words = [{"names": names[cluster]} if names else {} for cluster in order]
    return [{"cluster": c, "probability": float(row[c]), **word} for c, word in zip(order, words, strict=True)]


def query_problem(errors: Sequence[Any], known: Iterable[str]) -> str:
    """One line about the first query parameter that is unknown or has a wrong value.

    Args:
      errors: the errors that FastAPI found.
      known: the query parameters that the endpoint takes.
    """
    name, known = str(errors[0]["loc"][-1])[:40], list(known)
    if errors[0]["type"] == "extra_forbidden":
        hint = nearest(name, known) if known else ": this path takes none"
        return f"the query parameter '{name}' is unknown{hint}"
    return f"the query parameter {name} is '{str(errors[0]['input'])[:40]}': {errors[0]['msg'].lower()}"


def request_body(inputs: Inputs) -> dict[str, Any]:
    """OpenAPI's description of the bodies that a model takes; FastAPI can't know it, as the server reads raw bytes."""
    arrays = {name: {"type": "array", "items": {}, **facts} for name, facts in _arrays(inputs).items()}
    binary = {"schema": {"type": "string", "format": "binary"}}
    content: dict[str, Any] = {JSON: {"schema": {"type": "object", "properties": arrays}}}
    content |= dict.fromkeys(NUMPY, binary)
    if inputs.kind == "images":
        files = {"type": "array", "items": binary["schema"]}
        content |= {"image/*": binary, FORM: {"schema": {"type": "object", "properties": {"file": files}}}}
    return {"requestBody": {"required": True, "content": content}}


def _arrays(inputs: Inputs) -> dict[str, dict[str, str]]:
    described = inputs.describe()
    return {name: {"description": f"{x['dtype']} {x['shape']}".replace("'", "")} for name, x in described.items()}
