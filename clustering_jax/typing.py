"""Array types that carry their shape, such as ``Float[Array, "n d"]``.

The package jaxtyping defines them. It is needed to type-check this package, but not to run it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:

    class _Shaped:
        def __class_getitem__(cls, item: Any) -> Any:
            return Array

    Bool = Float = Int = _Shaped

__all__ = ["Array", "Bool", "Float", "Int"]
