"""The S3A jars fit pyspark and are complete."""

import re

import pytest

from localstack import jars
from localstack.errors import JarsError


def test_hadoop_aws_fits_the_installed_pyspark():
    jars.require_matching_hadoop(spark=jars.spark_home())


def test_another_hadoop_than_pysparks_is_refused_before_anything_is_fetched(tmp_path):
    other = tmp_path / "s3a-ivy.xml"
    text = jars.IVY_FILE.read_text()
    other.write_text(text.replace('name="hadoop-aws" rev="3.4.2"', 'name="hadoop-aws" rev="3.3.4"'))
    assert other.read_text() != text
    with pytest.raises(JarsError, match=r"hadoop-aws 3\.3\.4, but pyspark .* hadoop-client-api"):
        jars.fetched_jars(tmp_path, log=tmp_path / "log", say=print, ivy_file=other)
    assert not (tmp_path / "jars").exists()


def test_a_jar_cut_short_or_missing_is_noticed(tmp_path):
    (tmp_path / "a.jar").write_bytes(b"1234")
    (tmp_path / "manifest.json").write_text('{"a.jar": {"bytes": 4, "sha256": ""}}')
    assert jars.complete(tmp_path)
    (tmp_path / "a.jar").write_bytes(b"12")
    assert not jars.complete(tmp_path)
    (tmp_path / "a.jar").unlink()
    assert not jars.complete(tmp_path)


def test_the_ivy_file_names_no_host():
    declared = re.sub(r"<!--.*?-->", "", jars.IVY_FILE.read_text(), flags=re.DOTALL)
    assert "://" not in declared
