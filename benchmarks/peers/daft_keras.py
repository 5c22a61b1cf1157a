"""Daft with the same Keras model: its download, decode and resize, a class of its own, Parquet out.

daft_keras.py s3://bucket/images s3://bucket/output
"""

# Written as its users write it, without types.
# ruff: noqa: ANN001, ANN201, ANN204

import os
import sys

import daft
import numpy as np
from daft import DataType, col
from daft.io import IOConfig, S3Config

images, output = sys.argv[1:]

io_config = IOConfig(
    s3=S3Config(
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name=os.environ["AWS_REGION"],
        key_id=os.environ["AWS_ACCESS_KEY_ID"],
        access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        use_ssl=False,
    )
)


@daft.cls
class Featurizer:
    """ResNet50 up to its global average pool."""

    def __init__(self, weights):
        from keras.applications.resnet50 import ResNet50

        self.model = ResNet50(
            weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3)
        )
        self.model.load_weights(weights)

    @daft.method.batch(return_dtype=DataType.embedding(DataType.float32(), 2048), batch_size=128)
    def featurize(self, images):
        """Predict a batch of images of one size."""
        from keras.applications.resnet50 import preprocess_input

        batch = np.stack(images.to_pylist()).astype(np.float32)
        return self.model.predict(preprocess_input(batch), verbose=0)


featurizer = Featurizer(os.environ["RESNET50_WEIGHTS"])

df = daft.from_glob_path(f"{images}/**/*.jpg", io_config=io_config)
df = df.with_column("image", col("path").download(io_config=io_config).decode_image(mode="RGB"))
df = df.with_column("features", featurizer.featurize(col("image").resize(224, 224)))
df.select("path", "features").write_parquet(output, io_config=io_config)

# At the end of the interpreter, threads of Daft and of TensorFlow now and then abort the process.
os._exit(0)
