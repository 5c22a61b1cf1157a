"""Images -> vectors on the standalone cluster."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from tests.support.feature_images import contents, featurizer, images, two_parts
from toolkit.dataset import Dataset, matrix
from toolkit.features import FeaturizeParts
from toolkit.images.decode import decode_image
from toolkit.jobs import run_tasks
from toolkit.models import load_engine
from toolkit.parts import plan_parts, plan_tasks

__all__ = ["contents", "featurizer", "images"]


def test_every_image_is_a_vector_or_has_a_reason(
    spark, images, featurizer, contents, storage
) -> None:
    written = Dataset(storage, storage.location("test-features-written"))
    parts = plan_parts(images, count=len(images), multiply_adds=1e9)
    tasks = plan_tasks(parts, count=len(images), slots=lambda: 1)

    each = run_tasks(spark, tasks, FeaturizeParts(featurizer, written))
    done = list(chain.from_iterable(each))

    assert [part.number for part in done] == [0, 1] == [file.number for file in written.files()]
    reasons = {
        origin.rpartition("/")[2]: reason for part in done for origin, reason in part.unreadable
    }
    assert set(reasons) == {"truncated.jpg", "zero bytes.jpg", "text.jpg", "gone.jpg"}
    assert "truncated" in reasons["truncated.jpg"]
    assert "empty" in reasons["zero bytes.jpg"]
    assert "not an image" in reasons["text.jpg"]
    assert "disappeared" in reasons["gone.jpg"]

    table = pa.concat_tables(written.tables())
    assert sum(part.featurized for part in done) == table.num_rows == 40
    assert table["origin"].to_pylist() == [image.origin for image in images[:40]]
    vectors = matrix(table["features"], dimensions=1280)
    engine = load_engine(featurizer.model, threads=1)
    pixels = [decode_image(contents[f"good {i}.png"], size=engine.input_size) for i in range(40)]
    np.testing.assert_allclose(vectors, engine.compute(np.stack(pixels)), atol=1e-4)
    assert vectors.std(axis=0).max() > 0.1  # different images, different vectors


def test_task_that_spark_repeats_keeps_the_parts_it_has_written(
    spark, images, featurizer, storage
) -> None:
    class FailsOnce(Dataset):  # in here, so that it travels to the executor
        def write(self, number: int, table: pa.Table, *, metadata=None) -> None:
            # At the second part, which may be either: a part is done with its slowest image.
            if TaskContext.get().attemptNumber() == 0 and self.files():
                raise OSError("the store is away for a moment")
            Dataset.write(self, number, table, metadata=metadata)

    written = FailsOnce(storage, storage.location("test-features-repeated"))
    task = tuple(two_parts(images))
    (done,) = run_tasks(spark, [task], FeaturizeParts(featurizer, written))
    assert [part.featurized for part in done] == [5, 8]
    assert sorted(part.reused for part in done) == [False, True]
    written.clear()
