"""`DeepImageFeaturizer` and `DeepImagePredictor` against the engines themselves."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pyspark.errors import IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from tests.support.plain_keras import check_against_plain_keras, cosines
from tests.support.stages import computed
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.models import load_engine, model_spec, prepare, resolve_weights, top_classes
from toolkit.sparkdl import DeepImageFeaturizer, DeepImagePredictor, ImageSchema
from toolkit.sparkdl.image import imageIO

MODEL = "EfficientNetLite0"
FILES = StructType([StructField("name", StringType()), StructField("file", BinaryType())])


def engine(head="pooled"):
    spec, cache = model_spec(MODEL), cache_folder()
    found = resolve_weights(spec, "imagenet", head=head, cache=cache)
    return load_engine(prepare(spec, found, head=head, precision="f32", cache=cache), threads=1)


@pytest.fixture(scope="module")
def files(sample_files):
    """Return rows of sample images as files."""
    return [(file.name, file.read_bytes()) for file in sample_files[:9]]


@pytest.fixture(scope="module")
def empty(spark):
    """Return a frame of files without rows."""
    return spark.createDataFrame([], FILES)


def featurizer(column="file", **arguments):
    defaults = {"inputCol": column, "outputCol": "features", "modelName": MODEL}
    return DeepImageFeaturizer(**defaults | arguments)


def predictor(column="file", **arguments):
    defaults = {"inputCol": column, "outputCol": "classes", "modelName": MODEL}
    return DeepImagePredictor(**defaults | arguments)


def vectors(stage, rows, schema=FILES):
    """Return what a stage gives for rows, computed in this process."""
    return np.stack([each.toArray() for each in computed(stage, rows, schema)])


@pytest.mark.parametrize(
    ("hint", "resampling"),
    [("SCALE_AREA_AVERAGING", "area"), ("SCALE_FAST", "nearest"), ("BILINEAR", "bilinear")],
)
def test_files_have_the_features_of_the_engine(spark, files, hint, resampling):
    found = vectors(featurizer(scaleHint=hint, precision="f32"), files)
    pixels = [decode_image(file, size=(224, 224), resampling=resampling) for _, file in files]
    expected = engine().compute(np.stack(pixels))
    assert found.shape == (9, 1280)
    assert cosines(found, expected).min() > 0.9999


def test_structs_have_the_features_of_the_files(spark, files):
    images = [Image.open(io.BytesIO(file)).convert("RGB") for _, file in files]
    structs = [(imageIO.imageArrayToStruct(np.asarray(image)[..., ::-1]),) for image in images]
    found = vectors(featurizer("image", precision="f32"), structs, ImageSchema.imageSchema)
    np.testing.assert_allclose(found, vectors(featurizer(precision="f32"), files), atol=1e-4)


def test_gray_and_transparent_structs_are_featurized_as_their_colours_on_white(spark, sample_files):
    colour = Image.open(sample_files[0]).convert("RGB").resize((224, 224))
    gray = colour.convert("L")
    clear = colour.convert("RGBA")
    clear.putalpha(gray)
    on_white = Image.new("RGB", clear.size, "white")
    on_white.paste(clear, mask=clear)
    structs = [
        (imageIO.imageArrayToStruct(imageIO.PIL_to_imageStruct(image)),)
        for image in (gray, clear, gray.convert("RGB"), on_white)
    ]
    found = vectors(featurizer("image"), structs, ImageSchema.imageSchema)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    assert not np.array_equal(found[0], found[1])


def test_bad_rows_become_null_and_are_counted(spark, files, bad_files):
    stage = featurizer()
    assert stage.badRows == 0
    rows = [files[0], ("null", None), *bad_files.items(), files[0]]
    first, *bad, last = computed(stage, rows, FILES)
    assert first == last is not None
    assert bad == [None] * (1 + len(bad_files))
    assert stage.badRows == len(bad)


def test_bad_structs_become_null(spark):
    good = imageIO.imageArrayToStruct(np.full((8, 8, 3), 7, np.uint8), "good").asDict()
    undefined = {**good, "mode": -1, "height": -1, "width": -1, "nChannels": -1, "data": b""}
    floats = {**good, "mode": 21, "data": np.zeros((8, 8, 3), np.float32).tobytes()}
    short = {**good, "data": good["data"][:-1]}
    rows = [(each,) for each in (undefined, good, floats, None, short)]
    found = computed(predictor("image"), rows, ImageSchema.imageSchema)
    assert [each is not None for each in found] == [False, True, False, False, False]


def test_predictions_are_probabilities_or_named_classes(empty, files):
    pixels = [decode_image(file, size=(224, 224)) for _, file in files]
    expected = engine(head="classes").compute(np.stack(pixels))
    probabilities = vectors(predictor(precision="f32"), files)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    decoding = predictor(precision="f32", decodePredictions=True, topK=3)
    kind = decoding.transform(empty).schema["classes"].dataType.simpleString()
    assert kind == "array<struct<class:string,description:string,probability:float>>"
    for classes, each in zip(computed(decoding, files, FILES), expected, strict=True):
        found = [(top["class"], top.description) for top in classes]
        assert found == [(top.wordnet_id, top.name) for top in top_classes(each, count=3)]
        assert [top.probability for top in classes] == pytest.approx(sorted(each)[:-4:-1], abs=1e-5)


def test_a_saved_pipeline_computes_the_same_on_executors_and_in_sql(
    spark, storage, files, bad_files
):
    stages = [featurizer(scaleHint="BILINEAR", batchSize=3), predictor(decodePredictions=True)]
    root = f"s3a://{storage.name}/stages/pipeline"
    PipelineModel(stages).write().overwrite().save(root)
    loaded = PipelineModel.load(root)
    for ours, saved in zip(loaded.stages, stages, strict=True):
        assert ours.uid == saved.uid
        assert {p.name: v for p, v in ours.extractParamMap().items()} == {
            p.name: v for p, v in saved.extractParamMap().items()
        }
    rows = [*files, *bad_files.items()]
    frame = spark.createDataFrame(rows, FILES).coalesce(1)
    broken = frame.withColumn("file", F.raise_error(F.lit("read")).cast("binary"))
    both = loaded.transform(broken)  # nothing is computed before an action
    assert both.columns == ["name", "file", "features", "classes"]
    assert isinstance(both.schema["features"].dataType, VectorUDT)
    for ours, saved in zip(loaded.stages, stages, strict=True):  # one worker computes both
        ours.transform(frame).createOrReplaceTempView("computed")
        found = spark.sql(f"SELECT name, {saved.getOutputCol()} AS result FROM computed").collect()
        assert [row.name for row in found] == [name for name, _ in rows]
        assert [row.result for row in found] == computed(saved, rows, FILES)
        assert ours.badRows == len(bad_files)


def test_arguments_are_keywords_with_the_defaults_of_sparkdl(spark):
    stage = DeepImageFeaturizer()
    assert stage.getScaleHint() == "SCALE_AREA_AVERAGING"
    assert not stage.isDefined("modelName")
    assert (stage.getWeights(), stage.getPrecision()) == ("imagenet", "auto")
    assert stage.getBatchSize() is None
    assert (predictor().getDecodePredictions(), predictor().getTopK()) == (False, 5)
    with pytest.raises(TypeError, match="keyword"):
        DeepImageFeaturizer("image")
    poolings = {
        name: DeepImageFeaturizer(modelName=name).getPooling()
        for name in ("InceptionV3", "Xception", "VGG16", "VGG19", "ResNet50", MODEL, "MobileNetV2")
    }
    assert list(poolings.values()) == ["none"] * 4 + ["avg"] * 3
    assert stage.setParams(inputCol="a").setInputCol("b").getInputCol() == "b"
    assert stage.setModelName("VGG16").setPooling("avg").getPooling() == "avg"


def test_none_is_a_parameter_that_is_not_given(spark, tmp_path):
    stage = DeepImageFeaturizer(modelName=MODEL, pooling=None, batchSize=None, weights=None)
    assert stage.getWeights() == "imagenet"
    for _ in range(2):  # over itself, too
        stage.write().overwrite().save((tmp_path / "stage").as_uri())
    assert DeepImageFeaturizer.load((tmp_path / "stage").as_uri()).getBatchSize() is None


@pytest.mark.parametrize(
    ("param", "value", "named"),
    [
        ("modelName", "AlexNet", "ResNet50"),
        ("scaleHint", "CUBIC", "SCALE_SMOOTH"),
        ("precision", "int8", "bf16"),
        ("pooling", "max", "avg"),
        ("batchSize", 0, "less than 1"),
    ],
)
def test_a_wrong_value_is_refused_with_those_that_there_are(spark, param, value, named):
    with pytest.raises(TypeError, match=named):
        DeepImageFeaturizer(**{param: value})


def test_columns_are_checked_before_anything_runs(empty):
    with pytest.raises(IllegalArgumentException, match="pixels does not exist"):
        featurizer("pixels").transform(empty)
    with pytest.raises(IllegalArgumentException, match="already exists"):
        featurizer(outputCol="name").transform(empty)
    with pytest.raises(IllegalArgumentException, match="must be images"):
        featurizer("name").transform(empty)


def test_encoded_files_of_any_format_are_read(spark, sample_files):
    image = Image.open(sample_files[0])
    rows = []
    for kind in ("PNG", "BMP", "TIFF"):
        file = io.BytesIO()
        image.save(file, kind)
        rows.append((kind, file.getvalue()))
    found = vectors(featurizer(), rows)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_weights_in_the_store_are_found_in_a_session_that_no_profile_has_set_up(
    spark, storage, files
):
    key = storage.location("weights", "efficientnet.pth")
    source = resolve_weights(model_spec(MODEL), "imagenet", cache=cache_folder()).path
    storage.upload(source, key)
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    bucket = hadoop.get("toolkit.bucket")
    hadoop.unset("toolkit.bucket")
    try:
        assert vectors(featurizer(weights=key.uri), files[:1]).shape == (1, 1280)
    finally:
        hadoop.set("toolkit.bucket", bucket)
        storage.delete_all(key)


def test_features_and_predictions_are_those_of_plain_keras(spark, files, tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))  # not to the user's
    images = [file for _, file in files[:3]]
    check_against_plain_keras("MobileNetV2", 1_280, files=images, cache=tmp_path)
