"""Whether a promotion computes what this machine computed: the images that both have seen.

The rehearsal's features of its sample go to the promotion's folder, and the node puts its own of
the same images beside them: small files, by which any machine can tell, whoever promoted.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from toolkit.compare import Comparison, Features, compare_features, read_features
from toolkit.runs import RunRecord
from toolkit.storage import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Collection

    from toolkit.cloud.status import PromotionFolder
    from toolkit.storage import Location, Storage

__all__ = ["HERE", "THERE", "keep_features", "parity"]

HERE = "rehearsal.parquet"
"""The rehearsal's features, in the promotion's folder."""

THERE = "shared.parquet"
"""The node's features of the same images."""

_RECORD = b"record"


def keep_features(
    folder: PromotionFolder,
    name: str,
    *,
    storage: Storage,
    record: RunRecord,
    sample: Collection[str],
) -> None:
    """Put the features of some images into the promotion's folder.

    Parameters
    ----------
    folder
        The promotion.
    name
        `HERE` or `THERE`.
    storage, record
        The run that has made them, and the store that has it.
    sample
        Keys of the images, below the run's images.
    """
    features = read_features(storage, record, keys=sample)
    folder.storage.write(folder.file(name), _parquet(record, features))


def parity(folder: PromotionFolder) -> Comparison | None:
    """Compare what the rehearsal and the node have made of the images that both have seen.

    Returns
    -------
    Comparison or None
        None where there was no rehearsal, or the node has not come so far.

    Raises
    ------
    JobError
        The store can't be reached or refuses.
    """
    here, there = (_read(folder.storage, folder.file(name)) for name in (HERE, THERE))
    if here is None or there is None:
        return None
    return compare_features(*here, *there)


def _parquet(record: RunRecord, features: Features) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = sorted(features)
    labels = [features[key][0] for key in keys]
    vectors = pa.array([features[key][1] for key in keys], pa.list_(pa.float32()))
    schema = pa.schema(
        [("key", pa.string()), ("label", pa.string()), ("features", vectors.type)],
        metadata={_RECORD: record.to_json().encode()},
    )
    content = io.BytesIO()
    pq.write_table(pa.table([keys, labels, vectors], schema=schema), content)
    return content.getvalue()


def _read(storage: Storage, location: Location) -> tuple[RunRecord, Features] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(storage.read(location)))
    except ObjectNotFound:
        return None
    record = RunRecord.from_json(table.schema.metadata[_RECORD])
    columns = (table[name].to_pylist() for name in ("key", "label", "features"))
    return record, {
        key: (label, np.asarray(vector, np.float32))
        for key, label, vector in zip(*columns, strict=True)
    }
