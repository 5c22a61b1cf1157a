"""Features by SparkDL's transformer, as a notebook does it: images in the bucket to Parquet there.

`python -m benchmarks.sparkdl_job files|structs MODEL WEIGHTS s3a://bucket/images s3a://bucket/output`
"""

from __future__ import annotations

import sys

from toolkit.notebook import start_spark
from toolkit.sparkdl import DeepImageFeaturizer, ImageSchema, imageIO


def _main() -> None:
    column, model, weights, images, output = sys.argv[1:]
    spark = start_spark()
    if column == "files":
        # One column of files' contents, listed without their folders: the transformer decodes.
        frame = imageIO.filesToDF(spark.sparkContext, f"{images}/*/*")
        frame = frame.selectExpr("filePath AS origin", "fileData AS image")
    else:
        frame = ImageSchema.readImages(images, recursive=True)
        frame = frame.selectExpr("image.origin AS origin", "image")
    featurizer = DeepImageFeaturizer(
        inputCol="image", outputCol="features", modelName=model, weights=weights
    )
    features = featurizer.transform(frame).select("origin", "features")
    features.write.mode("overwrite").parquet(output)


if __name__ == "__main__":
    _main()
