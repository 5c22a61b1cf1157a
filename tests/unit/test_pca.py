"""PCA against scikit-learn, and against what it promises; on partitions of this process."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.support.vectors import LocalPartitions, vectors_of
from toolkit import pca
from toolkit.errors import JobError, RequestError
from toolkit.pca import PCAModel, fit_pca, parse_components

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sklearn.decomposition import PCA

pytestmark = pytest.mark.xdist_group("scikit-learn")  # costly to import

SHAPES = [(200, 12), (12, 40), (30, 30)]


def blocks(parts: Sequence[np.ndarray]) -> LocalPartitions:
    """Return the vectors, one partition for each part, in this order."""
    return LocalPartitions([[part] for part in parts])


def split(vectors: np.ndarray, partitions: int) -> list[np.ndarray]:
    return np.array_split(vectors, partitions)


def fit_here(vectors: np.ndarray, *, components: float) -> PCAModel:
    """Fit without Spark, where a test is about what the driver makes of the sums."""
    return pca._model(pca._scatter_of([vectors]), components)


def scikit_learn_pca(vectors: np.ndarray, *, components: int | None = None) -> PCA:
    from sklearn.decomposition import PCA

    return PCA(n_components=components, svd_solver="full").fit(vectors.astype(np.float64))


@pytest.mark.parametrize("partitions", [1, 3, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_scikit_learn(shape: tuple[int, int], partitions: int) -> None:
    vectors = vectors_of(*shape)
    features = blocks(split(vectors, partitions))
    rank = min(shape[0] - 1, shape[1])
    reference = scikit_learn_pca(vectors, components=rank)

    model = fit_pca(features, components=rank)

    assert model.n_samples == shape[0]
    assert_allclose(model.mean, reference.mean_, atol=1e-12)
    assert_allclose(model.explained_variance[:rank], reference.explained_variance_, rtol=1e-9)
    assert_allclose(model.explained_variance[rank:], 0, atol=1e-12)
    assert_allclose(model.explained_variance_ratio, reference.explained_variance_ratio_, rtol=1e-9)
    expected = reference.transform(vectors.astype(np.float64))
    assert_allclose(model.transform(vectors), expected, atol=1e-6)


def test_large_common_offset_costs_no_digits() -> None:
    vectors = vectors_of(300, 10, offset=1e3, spread=1e-2)
    reference = scikit_learn_pca(vectors)
    model = fit_pca(blocks(split(vectors, 3)), components=10)
    assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-9)
    assert_allclose(
        model.transform(vectors), reference.transform(vectors.astype(np.float64)), atol=1e-6
    )


def test_partitions_of_different_places_are_merged_about_the_common_mean() -> None:
    parts = [vectors_of(20, 6, offset=offset) for offset in (-5, 0, 1, 20)]
    reference = scikit_learn_pca(np.concatenate(parts))
    model = fit_pca(blocks(parts), components=6)
    assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-9)


def test_empty_partitions_and_single_rows_change_nothing() -> None:
    vectors = vectors_of(40, 8)
    none = vectors[:0]
    parts = [none, vectors[:1], none, vectors[1:39], vectors[39:], none]
    uneven = fit_pca(blocks(parts), components=8)
    even = fit_pca(blocks([vectors]), components=8)
    assert_allclose(uneven.explained_variance, even.explained_variance, rtol=1e-12)
    assert_allclose(uneven.components, even.components, atol=1e-12)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = vectors_of(100, 8, offset=5)
    whole = pca._scatter_of([vectors])
    monkeypatch.setattr(pca, "_BLOCK_ROWS", 7)
    blocks = pca._scatter_of([vectors[:3], vectors[3:60], vectors[60:]])
    assert_array_equal(blocks.upper, pca._scatter_of([vectors]).upper)
    assert blocks.n_samples == whole.n_samples == 100
    assert_allclose(blocks.upper, whole.upper, rtol=1e-12, atol=1e-12)
    assert_allclose(blocks.mean, vectors.astype(np.float64).mean(axis=0), rtol=1e-14)


def test_tree_of_tasks_adds_up_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = vectors_of(60, 5, offset=3)
    parts = [*split(vectors, 6), vectors[:0]]
    monkeypatch.setattr(pca, "_FAN_IN", 2)  # 7 states, 4, 2 for the driver
    total = pca._total_scatter(blocks(parts))
    whole = pca._scatter_of([vectors])
    assert total.n_samples == 60
    assert_allclose(total.mean, whole.mean, rtol=1e-12)
    assert_allclose(total.upper, whole.upper, rtol=1e-12, atol=1e-12)

    bad = [*split(vectors, 6), np.full((1, 5), np.nan)]
    with pytest.raises(JobError, match="NaN"):  # told through the tree
        pca._total_scatter(blocks(bad))


def test_second_fit_gives_the_same_numbers() -> None:
    features = blocks(split(vectors_of(150, 20), 7))
    one, other = fit_pca(features), fit_pca(features)
    assert_array_equal(one.mean, other.mean)
    assert_array_equal(one.components, other.components)
    assert_array_equal(one.explained_variance, other.explained_variance)


def test_components_are_orthonormal_with_their_largest_entry_positive() -> None:
    model = fit_here(vectors_of(200, 12), components=12)
    assert_allclose(model.components @ model.components.T, np.eye(12), atol=1e-12)
    largest = np.abs(model.components).argmax(axis=1)
    assert (model.components[np.arange(12), largest] > 0).all()
    assert (np.diff(model.explained_variance) <= 0).all()


@pytest.mark.parametrize("part", [0.5, 0.9, 0.95, 0.99])
def test_part_of_the_variance_keeps_the_smallest_number_that_reaches_it(part: float) -> None:
    ratios = fit_here(vectors_of(200, 12), components=part).explained_variance_ratio
    assert ratios.sum() >= part
    assert ratios[:-1].sum() < part


def test_default_explains_95_percent() -> None:
    vectors = vectors_of(60, 12)
    model = fit_pca(blocks([vectors]))
    assert_array_equal(model.components, fit_here(vectors, components=0.95).components)


def test_part_that_is_met_exactly_costs_no_component_more() -> None:
    # The parts are 0.7, 0.25 and 0.05 but for rounding: 0.7 + 0.25 may come out below 0.95.
    scales = np.diag(np.sqrt([70.0, 25.0, 5.0]))
    vectors = np.concatenate([scales, -scales])
    assert len(fit_here(vectors, components=0.95).components) == 2
    ratios = np.cumsum(fit_here(vectors, components=3).explained_variance_ratio)
    for kept, (part, following) in enumerate(pairwise(ratios), start=1):
        above = float(np.nextafter(part, 1))
        assert len(fit_here(vectors, components=above).components) == kept
        between = float((part + following) / 2)
        assert len(fit_here(vectors, components=between).components) == kept + 1


def test_all_of_the_variance_needs_no_more_than_the_rank() -> None:
    model = fit_here(vectors_of(6, 30), components=1.0)
    assert len(model.components) == 5
    assert_allclose(model.explained_variance_ratio.sum(), 1, rtol=1e-12)


def test_variances_below_the_resolution_are_not_kept() -> None:
    scales = np.diag(np.sqrt([1, 9e-13, 9e-13]))
    assert len(fit_here(np.concatenate([scales, -scales]), components=1.0).components) == 1


def test_rank_is_below_the_number_of_vectors_whatever_the_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pca, "_RESOLUTION", 0.0)
    with pytest.raises(RequestError, match=r"^6 components .* 5 directions"):
        fit_here(vectors_of(6, 30), components=6)


def test_more_components_than_the_rank_is_an_error_that_names_both() -> None:
    few = blocks([vectors_of(6, 30)])
    assert len(fit_pca(few, components=5).components) == 5
    with pytest.raises(RequestError, match=r"^6 components .* 5 directions"):
        fit_pca(few, components=6)

    repeated = np.tile(vectors_of(4, 10, offset=100), (25, 1))
    with pytest.raises(RequestError, match=r"^4 components .* 3 directions"):
        fit_pca(blocks(split(repeated, 3)), components=4)


@pytest.mark.parametrize("components", [0, -1, 0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_components_out_of_range_are_refused_before_any_work(components: float) -> None:
    with pytest.raises(RequestError, match=r"got (0|-|1\.5|nan|inf)"):
        fit_pca(None, components=components)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        [vectors_of(1, 4)],
        [np.tile(vectors_of(1, 4, offset=1e6), (3000, 1)), vectors_of(1, 4, offset=1e6)],
    ],
    ids=["one image", "identical images"],
)
def test_vectors_without_variance_are_an_error(parts: list) -> None:
    with pytest.raises(JobError, match="no variance"):
        fit_pca(blocks(parts))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([np.ones((0, 3))], "there are no vectors"),
        ([[[1, 2], [3, np.nan]]], "NaN"),
        ([[[1, 2]], [[3, np.inf], [-np.inf, 4]]], "NaN, null or infinite"),
        ([np.ones((2, 0))], "vectors are empty"),
        ([[[1, 2], [3, 4]], [[1, 2, 3]]], "different lengths, 2 and 3"),
    ],
)
def test_unusable_vectors_are_an_error_that_says_how(parts: list, text: str) -> None:
    with pytest.raises(JobError, match=text) as caught:
        fit_pca(blocks([np.asarray(part, np.float32) for part in parts]))
    assert "Traceback" not in caught.value.message


def test_lengths_that_differ_between_batches_are_an_error() -> None:
    with pytest.raises(ValueError, match="different lengths, 2 and 3"):
        pca._scatter_of([np.ones((4, 2)), np.ones((4, 3))])


def test_double_precision_vectors_are_taken() -> None:
    vectors = vectors_of(30, 4)
    model = fit_pca(blocks([vectors.astype(np.float64)]), components=4)
    singles = fit_pca(blocks([vectors]), components=4)
    assert_array_equal(model.components, singles.components)


def test_vectors_of_another_length_are_not_projected() -> None:
    model = PCAModel(np.zeros(3), np.eye(3), np.ones(3), np.ones(3) / 3, n_samples=9)
    with pytest.raises(ValueError, match=r"\(2, 4\) do not fit a PCA of 3 dimensions"):
        model.transform(np.ones((2, 4)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_saved_model_is_read_back_bit_for_bit(tmp_path: Path, *, in_memory: bool) -> None:
    rng = np.random.default_rng(0)
    model = PCAModel(
        mean=rng.random(4),
        components=rng.random((2, 4)),
        explained_variance=rng.random(4),
        explained_variance_ratio=rng.random(2),
        n_samples=17,
    )
    file = io.BytesIO() if in_memory else tmp_path / "pca.npz"
    model.save(file)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with np.load(file) as arrays:  # the contract of pca.npz, for readers without this package
        assert {"mean", "components", "explained_variance_ratio"} <= set(arrays.files)
    if isinstance(file, io.BytesIO):
        file.seek(0)

    back = PCAModel.load(file)

    assert back.n_samples == 17
    for name in ("mean", "components", "explained_variance", "explained_variance_ratio"):
        assert_array_equal(getattr(back, name), getattr(model, name))


def test_file_that_is_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    text = tmp_path / "pca.npz"
    text.write_text("no zip")
    with pytest.raises(JobError, match=r"pca\.npz holds no PCA model"):
        PCAModel.load(text)
    np.savez(text, mean=np.ones(3))
    with pytest.raises(JobError, match="components"):
        PCAModel.load(text)


@pytest.mark.parametrize(
    ("text", "components"),
    [("0.95", 0.95), ("1.0", 1.0), ("1", 1), ("25", 25), ("1e-1", 0.1), (" 7 ", 7)],
)
def test_components_are_parsed(text: str, components: float) -> None:
    parsed = parse_components(text)
    assert parsed == components
    assert type(parsed) is type(components)


@pytest.mark.parametrize("text", ["", "abc", "0", "-3", "0.0", "1.5", "25.0", "nan", "95%"])
def test_components_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="got") as caught:
        parse_components(text)
    assert text in caught.value.message
