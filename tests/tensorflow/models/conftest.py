"""Networks and drawings of fruit."""

from tests.support.fruit_drawings import draw_fruit, model_cache

__all__ = ["draw_fruit", "model_cache"]
