"""The usual notebook: binaryFile over s3a, pandas_udf with Keras predict, Parquet out.

    notebook.py s3a://bucket/images s3a://bucket/output

After the notebook "Featurization for transfer learning" of Databricks' documentation, which most
others were copied from, with its 16 partitions; Arrow batches of 128 images; ResNet50.
"""

# Written as its users write it, without types.
# ruff: noqa: ANN001, ANN201

import io
import os
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, element_at, pandas_udf, split

images, output = sys.argv[1:]

spark = (
    SparkSession.builder.master(os.environ["SPARK_MASTER"])
    .appName("notebook")
    .config("spark.executor.memory", os.environ["EXECUTOR_MEMORY"])
    .config("spark.driver.extraClassPath", os.environ["S3A_JARS"] + "/*")
    .config("spark.executor.extraClassPath", os.environ["S3A_JARS"] + "/*")
    .config("spark.hadoop.fs.s3a.endpoint", os.environ["AWS_ENDPOINT_URL"])
    .config("spark.hadoop.fs.s3a.access.key", os.environ["AWS_ACCESS_KEY_ID"])
    .config("spark.hadoop.fs.s3a.secret.key", os.environ["AWS_SECRET_ACCESS_KEY"])
    .config("spark.hadoop.fs.s3a.path.style.access", "true")
    .config("spark.sql.execution.arrow.maxRecordsPerBatch", "128")
    .getOrCreate()
)
weights_file = os.environ["RESNET50_WEIGHTS"]


def model_fn():
    """Build ResNet50 up to its global average pool, with its weights."""
    from keras.applications.resnet50 import ResNet50

    model = ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    model.load_weights(weights_file)
    return model


def preprocess(content):
    """Turn the bytes of an image into what ResNet50 takes."""
    from keras.applications.resnet50 import preprocess_input
    from keras.utils import img_to_array

    image = Image.open(io.BytesIO(content)).convert("RGB").resize((224, 224))
    return preprocess_input(img_to_array(image))


@pandas_udf("array<float>")
def featurize_udf(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
    """Load the model once for all batches of a task, and predict."""
    model = model_fn()
    for contents in batches:
        features = model.predict(np.stack(contents.map(preprocess)), verbose=0)
        yield pd.Series(list(features))


df = (
    spark.read.format("binaryFile")
    .option("pathGlobFilter", "*.jpg")
    .option("recursiveFileLookup", "true")
    .load(images)
)
features = df.repartition(16).select(
    col("path"),
    element_at(split(col("path"), "/"), -2).alias("label"),
    featurize_udf("content").alias("features"),
)
features.write.mode("overwrite").parquet(output)
spark.stop()
