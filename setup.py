"""The packages: `clustering_jax`, and the top-level `configs/` inside it as `clustering_jax.configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["clustering_jax", "clustering_jax.*"]), "clustering_jax.configs"],
    package_dir={"clustering_jax.configs": "configs"},
)
