"""PCA with all components: seconds to fit it to vectors that lie in memory.

pca.py spark-ml|scikit-learn|lapack|ours ROWS DIMENSIONS
"""

# Written as its users write it, without types.
# ruff: noqa: ANN001, ANN201, ANN202

import json
import os
import sys
import time
from functools import partial

import numpy as np

PARTITIONS = 8


def block(number, *, rows, dimensions):
    """Draw one of the partitions' share of the vectors; the variances fall as features' do."""
    rng = np.random.default_rng(number)
    here = rows * (number + 1) // PARTITIONS - rows * number // PARTITIONS
    scales = 1 / np.sqrt(np.arange(1, dimensions + 1))
    return (rng.standard_normal((here, dimensions), np.float32) * scales).astype(np.float32)


def in_memory(rows, dimensions):
    """Return all vectors as one array."""
    draw = partial(block, rows=rows, dimensions=dimensions)
    return np.concatenate([draw(number) for number in range(PARTITIONS)])


def spark_ml(rows, dimensions):
    """Fit Spark ML's PCA to a cached DataFrame of its vectors."""
    from pyspark.ml.feature import PCA
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master(os.environ["SPARK_MASTER"])
        .appName("pca")
        .config("spark.executor.memory", os.environ["EXECUTOR_MEMORY"])
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "256")
        .getOrCreate()
    )
    draw = partial(block, rows=rows, dimensions=dimensions)

    def vectors(batches):
        import pandas as pd

        for batch in batches:
            for number in batch["id"]:
                drawn = draw(number)
                for start in range(0, len(drawn), 256):
                    yield pd.DataFrame({"array": list(drawn[start : start + 256])})

    arrays = spark.range(0, PARTITIONS, numPartitions=PARTITIONS)
    arrays = arrays.mapInPandas(vectors, "array array<double>")
    df = arrays.select(array_to_vector("array").alias("features")).cache()
    df.count()
    begin = time.perf_counter()
    model = PCA(k=dimensions, inputCol="features", outputCol="pca").fit(df)
    seconds = time.perf_counter() - begin
    return seconds, model.explainedVariance.toArray()


def scikit_learn(rows, dimensions):
    """Fit scikit-learn's PCA as it comes."""
    from sklearn.decomposition import PCA

    vectors = in_memory(rows, dimensions)
    begin = time.perf_counter()
    model = PCA().fit(vectors)
    return time.perf_counter() - begin, model.explained_variance_ratio_


def lapack(rows, dimensions):
    """Do by hand what no PCA can do without: one Gram matrix, one eigendecomposition, float64."""
    vectors = in_memory(rows, dimensions)
    begin = time.perf_counter()
    centred = vectors.astype(np.float64)
    centred -= centred.mean(axis=0)
    variances, _ = np.linalg.eigh(centred.T @ centred)
    return time.perf_counter() - begin, variances[::-1] / variances.sum()


def ours(rows, dimensions):
    """Fit the toolkit's PCA to cached blocks, as many partitions as a run makes: one a core."""
    from pathlib import Path

    from toolkit.cli.place import open_place
    from toolkit.jobs import slots
    from toolkit.pca import fit_pca
    from toolkit.session import spark_session

    place = open_place("local", say=lambda _: None)
    draw = partial(block, rows=rows, dimensions=dimensions)
    log = Path(os.environ["BENCHMARK_LOG"])
    with spark_session(place.profile, app="pca", log=log) as spark:
        numbers = spark.sparkContext.parallelize(range(PARTITIONS), slots(spark))
        blocks = numbers.map(draw).cache()
        blocks.count()
        begin = time.perf_counter()
        model = fit_pca(blocks, components=1.0)
        return time.perf_counter() - begin, model.explained_variance_ratio


WAYS = {
    "spark-ml": spark_ml,
    "scikit-learn": scikit_learn,
    "lapack": lapack,
    "ours": ours,
}

if __name__ == "__main__":
    way, rows, dimensions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seconds, ratios = WAYS[way](rows, dimensions)
    print(json.dumps({"seconds": seconds, "ratios": [float(each) for each in ratios[:8]]}))
