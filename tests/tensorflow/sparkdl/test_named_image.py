"""`DeepImageFeaturizer` and `DeepImagePredictor` on the cluster, against the engines themselves."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.models import load_engine, model_spec, prepare, resolve_weights, top_classes
from toolkit.sparkdl import DeepImageFeaturizer, DeepImagePredictor, ImageSchema
from toolkit.sparkdl.image import imageIO

MODEL = "EfficientNetLite0"
FILES = StructType([StructField("name", StringType()), StructField("file", BinaryType())])


def engine(name=MODEL, head="pooled", weights="imagenet"):
    spec, cache = model_spec(name), cache_folder()
    found = resolve_weights(spec, weights, head=head, cache=cache)
    return load_engine(prepare(spec, found, head=head, precision="f32", cache=cache), threads=1)


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def files(spark, sample_files):
    """Return a data frame of sample images as files, in two partitions."""
    rows = [(file.name, file.read_bytes()) for file in sample_files[:9]]
    return spark.createDataFrame(rows, FILES).coalesce(2)


@pytest.fixture(scope="module")
def structs(spark, sample_files):
    """Return a data frame of the same images as structs."""
    arrays = [np.asarray(Image.open(file).convert("RGB"))[..., ::-1] for file in sample_files[:9]]
    rows = [
        (imageIO.imageArrayToStruct(array, file.name),)
        for array, file in zip(arrays, sample_files, strict=False)
    ]
    return spark.createDataFrame(rows, ImageSchema.imageSchema).coalesce(2)


def vectors(frame, name="features"):
    return np.stack([row[name].toArray() for row in frame.collect()])


@pytest.mark.parametrize(
    ("hint", "resampling"),
    [
        ("SCALE_AREA_AVERAGING", "area"),
        pytest.param("SCALE_FAST", "nearest", marks=pytest.mark.slow),
        pytest.param("BILINEAR", "bilinear", marks=pytest.mark.slow),
    ],
)
def test_files_have_the_features_of_the_engine(files, hint, resampling):
    featurizer = DeepImageFeaturizer(
        inputCol="file", outputCol="features", modelName=MODEL, scaleHint=hint, precision="f32"
    )
    features = featurizer.transform(files)
    assert features.columns == ["name", "file", "features"]
    assert isinstance(features.schema["features"].dataType, VectorUDT)
    rows = features.collect()
    pixels = [decode_image(row.file, size=(224, 224), resampling=resampling) for row in rows]
    expected = engine().compute(np.stack(pixels))
    found = np.stack([row.features.toArray() for row in rows])
    assert found.shape == (9, 1280)
    assert cosines(found, expected).min() > 0.9999


@pytest.mark.slow
def test_structs_have_the_features_of_the_files(files, structs):
    def features(frame, column):
        featurizer = DeepImageFeaturizer(
            inputCol=column, outputCol="features", modelName=MODEL, precision="f32"
        )
        return vectors(featurizer.transform(frame))

    np.testing.assert_allclose(features(structs, "image"), features(files, "file"), atol=1e-4)


@pytest.mark.slow
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
    frame = spark.createDataFrame(structs, ImageSchema.imageSchema).coalesce(1)
    featurizer = DeepImageFeaturizer(inputCol="image", outputCol="features", modelName=MODEL)
    found = vectors(featurizer.transform(frame))
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    assert not np.array_equal(found[0], found[1])


def test_bad_rows_become_null_and_are_counted(spark, sample_files, bad_files):
    good = sample_files[0].read_bytes()
    rows = [("good", good), ("null", None), *bad_files.items(), ("good again", good)]
    frame = spark.createDataFrame(rows, FILES).coalesce(1)
    featurizer = DeepImageFeaturizer(inputCol="file", outputCol="features", modelName=MODEL)
    assert featurizer.badRows == 0
    found = {row.name: row.features for row in featurizer.transform(frame).collect()}
    assert [name for name, each in found.items() if each is not None] == ["good", "good again"]
    assert found["good"] == found["good again"]
    assert featurizer.badRows == 1 + len(bad_files)


@pytest.mark.slow
def test_bad_structs_become_null(spark, sample_files):
    good = imageIO.imageArrayToStruct(np.full((8, 8, 3), 7, np.uint8), "good").asDict()
    undefined = {**good, "mode": -1, "height": -1, "width": -1, "nChannels": -1, "data": b""}
    floats = {**good, "mode": 21, "data": np.zeros((8, 8, 3), np.float32).tobytes()}
    short = {**good, "data": good["data"][:-1]}
    frame = spark.createDataFrame(
        [(each,) for each in (undefined, good, floats, None, short)], ImageSchema.imageSchema
    ).coalesce(1)
    predictor = DeepImagePredictor(inputCol="image", outputCol="classes", modelName=MODEL)
    found = [row.classes for row in predictor.transform(frame).collect()]
    assert [each is not None for each in found] == [False, True, False, False, False]


@pytest.mark.slow
def test_predictions_are_probabilities_or_named_classes(files):
    arguments = {"inputCol": "file", "outputCol": "classes", "modelName": MODEL, "precision": "f32"}
    rows = DeepImagePredictor(**arguments).transform(files).collect()
    pixels = [decode_image(row.file, size=(224, 224)) for row in rows]
    expected = engine(head="classes").compute(np.stack(pixels))
    probabilities = np.stack([row.classes.toArray() for row in rows])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    predictor = DeepImagePredictor(**arguments, decodePredictions=True, topK=3)
    decoded = predictor.transform(files)
    kind = decoded.schema["classes"].dataType.simpleString()
    assert kind == "array<struct<class:string,description:string,probability:float>>"
    for row, each in zip(decoded.collect(), expected, strict=True):
        found = [(top["class"], top.description) for top in row.classes]
        assert found == [(top.wordnet_id, top.name) for top in top_classes(each, count=3)]
        assert [top.probability for top in row.classes] == pytest.approx(
            sorted(each)[:-4:-1], abs=1e-5
        )


@pytest.mark.slow
def test_the_featurizer_is_lazy_and_can_be_used_in_sql(files):
    featurizer = DeepImageFeaturizer(inputCol="file", outputCol="features", modelName=MODEL)
    broken = files.withColumn("file", F.raise_error(F.lit("read")).cast("binary"))
    featurizer.transform(broken)  # nothing is computed before an action
    featurizer.transform(files).createOrReplaceTempView("featurized")
    (row,) = files.sparkSession.sql("SELECT count(features) AS n FROM featurized").collect()
    assert row.n == 9


def test_arguments_are_keywords_with_the_defaults_of_sparkdl():
    featurizer = DeepImageFeaturizer()
    assert featurizer.getScaleHint() == "SCALE_AREA_AVERAGING"
    assert not featurizer.isDefined("modelName")
    assert (featurizer.getWeights(), featurizer.getPrecision()) == ("imagenet", "auto")
    assert featurizer.getBatchSize() is None
    predictor = DeepImagePredictor()
    assert (predictor.getDecodePredictions(), predictor.getTopK()) == (False, 5)
    with pytest.raises(TypeError, match="keyword"):
        DeepImageFeaturizer("image")
    poolings = {
        name: DeepImageFeaturizer(modelName=name).getPooling()
        for name in ("InceptionV3", "Xception", "VGG16", "VGG19", "ResNet50", MODEL, "MobileNetV2")
    }
    assert list(poolings.values()) == ["none"] * 4 + ["avg"] * 3
    assert featurizer.setParams(inputCol="a").setInputCol("b").getInputCol() == "b"
    assert featurizer.setModelName("VGG16").setPooling("avg").getPooling() == "avg"


@pytest.mark.slow
def test_none_is_a_parameter_that_is_not_given(spark, tmp_path):
    stage = DeepImageFeaturizer(modelName=MODEL, pooling=None, batchSize=None, weights=None)
    assert stage.getWeights() == "imagenet"
    stage.save(str(tmp_path / "stage"))
    assert DeepImageFeaturizer.load(str(tmp_path / "stage")).getBatchSize() is None


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
def test_a_wrong_value_is_refused_with_those_that_there_are(param, value, named):
    with pytest.raises(TypeError, match=named):
        DeepImageFeaturizer(**{param: value})


def test_columns_are_checked_before_anything_runs(files):
    def transform(**arguments):
        DeepImageFeaturizer(modelName=MODEL, **arguments).transform(files)

    with pytest.raises(IllegalArgumentException, match="pixels does not exist"):
        transform(inputCol="pixels", outputCol="features")
    with pytest.raises(IllegalArgumentException, match="already exists"):
        transform(inputCol="file", outputCol="name")
    with pytest.raises(IllegalArgumentException, match="must be images"):
        transform(inputCol="name", outputCol="features")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3a"])
def test_stages_and_pipelines_save_and_load(files, storage, tmp_path, place):
    root = tmp_path.as_uri() if place == "local" else f"s3a://{storage.name}/stages"
    featurizer = DeepImageFeaturizer(
        inputCol="file", outputCol="features", modelName=MODEL, scaleHint="BILINEAR", batchSize=3
    )
    featurizer.write().overwrite().save(f"{root}/featurizer")
    featurizer.write().overwrite().save(f"{root}/featurizer")
    loaded = DeepImageFeaturizer.load(f"{root}/featurizer")
    assert loaded.uid == featurizer.uid
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in featurizer.extractParamMap().items()
    }
    predictor = DeepImagePredictor(
        inputCol="file", outputCol="classes", modelName=MODEL, decodePredictions=True
    )
    model = Pipeline(stages=[featurizer, predictor]).fit(files)
    model.write().overwrite().save(f"{root}/pipeline")
    again = PipelineModel.load(f"{root}/pipeline").transform(files)
    assert again.collect() == model.transform(files).collect()


@pytest.mark.slow
def test_encoded_files_of_any_format_are_read(spark, sample_files):
    image = Image.open(sample_files[0])
    rows = []
    for kind in ("PNG", "BMP", "TIFF"):
        file = io.BytesIO()
        image.save(file, kind)
        rows.append((kind, file.getvalue()))
    frame = spark.createDataFrame(rows, FILES).coalesce(1)
    featurizer = DeepImageFeaturizer(inputCol="file", outputCol="features", modelName=MODEL)
    found = vectors(featurizer.transform(frame))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.slow
def test_weights_in_the_store_are_found_in_a_session_that_no_profile_has_set_up(
    spark, storage, files, monkeypatch
):
    key = storage.location("weights", "efficientnet.pth")
    source = resolve_weights(model_spec(MODEL), "imagenet", cache=cache_folder()).path
    storage.upload(source, key)
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    bucket = hadoop.get("toolkit.bucket")
    hadoop.unset("toolkit.bucket")
    try:
        featurizer = DeepImageFeaturizer(
            inputCol="file", outputCol="features", modelName=MODEL, weights=key.uri
        )
        assert vectors(featurizer.transform(files.limit(1))).shape == (1, 1280)
    finally:
        hadoop.set("toolkit.bucket", bucket)
        storage.delete_all(key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("InceptionV3", 131_072),
        ("Xception", 204_800),
        ("ResNet50", 2_048),
        ("VGG16", 25_088),
        ("VGG19", 25_088),
        ("MobileNetV2", 1_280),
    ],
)
def test_features_and_predictions_are_those_of_plain_keras(
    files, tmp_path, monkeypatch, name, length
):
    """The network as `keras.applications` builds it, its own preprocessing, the same pixels."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))  # not to the user's: they are large
    from toolkit.models.tensorflow_import import import_tensorflow

    import_tensorflow(keras_home=tmp_path / "keras")
    import keras

    from toolkit.models.graph import build_network

    spec = model_spec(name)
    weights = resolve_weights(spec, "random:3", head="classes", cache=tmp_path)
    classifier = next(
        layer
        for layer in build_network(spec, weights, head="classes")[0].layers
        if isinstance(layer, keras.Model)
    )
    application = getattr(keras.applications, name)
    module = getattr(
        keras.applications,
        {
            "InceptionV3": "inception_v3",
            "Xception": "xception",
            "ResNet50": "resnet50",
            "VGG16": "vgg16",
            "VGG19": "vgg19",
            "MobileNetV2": "mobilenet_v2",
        }[name],
    )
    plain = application(weights=None)
    plain.set_weights(classifier.get_weights())
    headless = application(
        include_top=False,
        weights=None,
        input_shape=(*spec.input_size, 3),
        pooling="avg" if length == spec.dimensions else None,
    )
    headless.set_weights(plain.get_weights()[: len(headless.get_weights())])
    few = files.limit(3).coalesce(1).cache()
    pixels = np.stack([decode_image(row.file, size=spec.input_size) for row in few.collect()])
    ready = module.preprocess_input(pixels.astype(np.float32))

    featurizer = DeepImageFeaturizer(
        inputCol="file",
        outputCol="features",
        modelName=name,
        scaleHint="BILINEAR",
        weights="random:3",
        precision="f32",
    )
    found = vectors(featurizer.transform(few))
    expected = headless.predict(ready, verbose=0).reshape(3, -1)
    assert found.shape == (3, length) == expected.shape
    assert cosines(found, expected).min() > 0.9999

    predictor = DeepImagePredictor(
        inputCol="file",
        outputCol="classes",
        modelName=name,
        weights="random:3",
        precision="f32",
    )
    probabilities = plain.predict(ready, verbose=0)
    np.testing.assert_allclose(
        vectors(predictor.transform(few), "classes"), probabilities, atol=1e-4
    )
    decoded = predictor.setDecodePredictions(value=True).transform(few).collect()
    for row, each in zip(decoded, probabilities, strict=True):
        assert row.classes[0].description == top_classes(each, count=1)[0].name
    few.unpersist()
