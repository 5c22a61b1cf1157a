"""Row by row, as the old SparkDL did: Spark's image source, a plain udf, a batch of 1.

row_by_row.py s3a://bucket/images s3a://bucket/output
"""

# Written as its users write it, without types.
# ruff: noqa: ANN001, ANN201

import os
import sys

import numpy as np
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
from pyspark.sql.types import ArrayType, FloatType

images, output = sys.argv[1:]

spark = (
    SparkSession.builder.master(os.environ["SPARK_MASTER"])
    .appName("row by row")
    .config("spark.executor.memory", os.environ["EXECUTOR_MEMORY"])
    .config("spark.driver.extraClassPath", os.environ["S3A_JARS"] + "/*")
    .config("spark.executor.extraClassPath", os.environ["S3A_JARS"] + "/*")
    .config("spark.hadoop.fs.s3a.endpoint", os.environ["AWS_ENDPOINT_URL"])
    .config("spark.hadoop.fs.s3a.access.key", os.environ["AWS_ACCESS_KEY_ID"])
    .config("spark.hadoop.fs.s3a.secret.key", os.environ["AWS_SECRET_ACCESS_KEY"])
    .config("spark.hadoop.fs.s3a.path.style.access", "true")
    .getOrCreate()
)
weights_file = os.environ["RESNET50_WEIGHTS"]


model = None


def loaded_model():
    """Build ResNet50 up to its global average pool, once a task."""
    global model  # noqa: PLW0603 - how a udf keeps what is expensive
    if model is None:
        from keras.applications.resnet50 import ResNet50

        model = ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
        model.load_weights(weights_file)
    return model


@udf(ArrayType(FloatType()))
def featurize(image):
    """Resize one image of Spark's image schema (BGR bytes) and predict it."""
    from keras.applications.resnet50 import preprocess_input

    shape = (image.height, image.width, image.nChannels)
    bgr = np.frombuffer(image.data, np.uint8).reshape(shape)
    resized = Image.fromarray(bgr[:, :, ::-1]).resize((224, 224))
    batch = preprocess_input(np.asarray(resized, np.float32)[None])
    return loaded_model().predict(batch, verbose=0)[0].tolist()


df = (
    spark.read.format("image")
    .option("dropInvalid", True)  # noqa: FBT003 - Spark's signature
    .option("recursiveFileLookup", "true")
    .load(images)
)
features = df.select("image.origin", featurize("image").alias("features"))
features.write.mode("overwrite").parquet(output)
spark.stop()
