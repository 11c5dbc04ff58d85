"""TensorFlow's `tf.math`: element-wise functions, reductions, running sums."""

from graphnn.nn import l2_normalize
from graphnn.ops import elementwise
from graphnn.tf_names import MATH

globals().update({name: getattr(elementwise, name) for name in elementwise.__all__})
globals().update(MATH)
__all__ = ["l2_normalize"]
__all__ += sorted({*elementwise.__all__, *MATH})
