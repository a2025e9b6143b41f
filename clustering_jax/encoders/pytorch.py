"""Image encoders of timm and of Hugging Face's transformers, run by PyTorch: the extra "torch".

``timm:NAME`` downloads the weights of NAME unless they are there, because a user asks for it by this name. ``hf:DIR``
reads a directory. All other encoders run in JAX and need no PyTorch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clustering_jax.data.images.preprocessing import FILTERS, Preprocessing
from clustering_jax.encoders.base import Encoder, read_preprocessing
from clustering_jax.errors import UserError


def load(name: str) -> Encoder:
    """The encoder that a name with a prefix stands for.

    Args:
      name: "timm:" and the name of a model of timm, or "hf:" and a directory of `save_pretrained`.

    Raises:
      UserError: a library is not installed, the model can't be read, or it needs another preprocessing.
    """
    library, _, model = name.partition(":")
    network, features, preprocessing = PREFIXES[library](name, model)
    network = network.eval()
    checksum = _checksum(network.state_dict())
    return Encoder(name, checksum, {}, _on_host(network, features, preprocessing), preprocessing, compiled=False)


def _library(module: str, name: str) -> Any:
    """The imported module; UserError if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"the encoder '{name}' needs {module} ({error}): pip install 'clustering_jax[torch]'"
        ) from error


def _timm(name: str, model: str) -> tuple[Any, Callable, Preprocessing]:
    timm = _library("timm", name)
    try:
        network = timm.create_model(model, pretrained=True, num_classes=0)
    except Exception as error:  # an unknown name, no weights of it, or no connection
        raise UserError(f"timm can't make the model '{model}' ({_one_line(error)})") from error
    settings = timm.data.resolve_model_data_config(network)
    (height, width), share = settings["input_size"][-2:], settings["crop_pct"]
    whole = settings.get("crop_mode", "center") == "squash" or height != width
    if settings["interpolation"] not in FILTERS or (whole and share != 1):
        raise UserError(f"the model '{model}' needs a preprocessing that is not supported: {settings}")
    resize = 0 if whole else math.floor(height / share)
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return network, network, Preprocessing((height, width), resize, settings["interpolation"], mean, std)


def _hugging_face(name: str, model: str) -> tuple[Any, Callable, Preprocessing]:
    transformers, directory = _library("transformers", name), Path(model).expanduser()
    if not (directory / "config.json").is_file():
        raise UserError(f"embed.encoder is '{name}': {directory} has no config.json, give a model's directory")
    try:
        network = transformers.AutoModel.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        raise UserError(f"transformers can't read {directory} ({_one_line(error)})") from error

    def features(pixels: Any) -> Any:
        result = getattr(network, "get_image_features", network)(pixel_values=pixels)
        if not hasattr(result, "keys"):
            return result
        pooled = result.get("pooler_output")
        # Without a pooled output, the mean over the tokens.
        return result.last_hidden_state.mean(1) if pooled is None else pooled.flatten(1)

    return network, features, read_preprocessing(directory, Preprocessing())


PREFIXES: Mapping[str, Callable[[str, str], tuple[Any, Callable, Preprocessing]]] = {
    "timm": _timm,
    "hf": _hugging_face,
}


def _on_host(network: Any, features: Callable, preprocessing: Preprocessing) -> Callable[[Any, np.ndarray], np.ndarray]:
    """``(params, uint8 [n, h, w, 3]) -> float32 [n, d]`` by PyTorch, on its GPU where it has one."""
    torch = _library("torch", "timm or hf")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in preprocessing[-2:])

    def run(_: Any, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
            return features((pixels.float() / 255 - mean) / std).float().cpu().numpy()

    return run


def _checksum(state: Mapping[str, Any]) -> str:
    """sha256 of the names and the values of the weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = np.ascontiguousarray(state[name].float().cpu().numpy())
        digest.update(f"{name}{values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
