"""Parquet files, Excel workbooks and dataset folders are read like text files, or refused with one sentence."""

import sys

import pytest

from nas_meta.errors import DataError
from nas_meta.tasks.sources.tables import Datasets, Excel, Parquet

COLUMNS = {"text": ["a", "b", None, "c"], "label": [0, 1, 1, 1]}


def read(source, path, **options):
    return source(source.Options(path=path, **options)).read()


@pytest.fixture
def dataset():
    datasets = pytest.importorskip("datasets")
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    return datasets.Dataset.from_dict(COLUMNS, features=datasets.Features(features))


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(COLUMNS), tmp_path / "a.parquet")
    assert read(Parquet, tmp_path / "a.parquet") == read(Parquet, tmp_path) == {"0": ["a"], "1": ["b", "c"]}
    with pytest.raises(DataError, match=r"a\.parquet: there is no column 'txt'; did you mean 'text'"):
        read(Parquet, tmp_path / "a.parquet", text="txt")
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": ["x", None]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet, row 2: 'label' is empty"):
        read(Parquet, tmp_path / "b.parquet")


def test_excel(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        [None],
        ["label", None, "text"],
        ["x", 1, 3.0],
        ["x", None, "hi"],
        [],
        ["y", None, None],
        [2, "", "no"],
    ):
        book.active.append(row)
    other = book.create_sheet("other")
    other.append(["text", "label"])
    other.append(["a", None])
    book.save(tmp_path / "a.xlsx")
    source = Excel(Excel.Options(path=tmp_path / "a.xlsx"))
    assert source.read() == {"x": ["3", "hi"], "2": ["no"]}
    assert [note.removeprefix(f"{tmp_path}/") for note in source.reading_notes()] == [
        "a.xlsx is read from its first sheet 'Sheet'; tasks.sheet names another one",
        "a.xlsx has 1 row without a text, left out",
    ]
    with pytest.raises(DataError, match=r"a\.xlsx, row 2: 'label' is empty"):
        read(Excel, tmp_path / "a.xlsx", sheet="other")
    with pytest.raises(DataError, match=r"a\.xlsx has no sheet 'others'; did you mean 'other'"):
        read(Excel, tmp_path / "a.xlsx", sheet="others")


@pytest.mark.parametrize("layout", ["saved", "hub"])
def test_dataset_folders_name_classes_and_splits(layout, dataset, tmp_path):
    import datasets

    if layout == "saved":
        datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(tmp_path / "d"))
    else:
        (tmp_path / "d/data").mkdir(parents=True)
        for split in ("train", "test"):
            dataset.to_parquet(str(tmp_path / f"d/data/{split}-00000-of-00001.parquet"))
    source = Datasets(Datasets.Options(path=tmp_path / "d"))
    assert source.read() == {"neg": ["a", "a"], "pos": ["b", "c", "b", "c"]}
    assert len(source.reading_notes()) == 2
    assert "joined" in source.reading_notes()[1] and "2 rows without a text" in source.reading_notes()[0]


def test_a_dataset_without_splits(dataset, tmp_path):
    dataset.save_to_disk(str(tmp_path / "d"))
    assert read(Datasets, tmp_path / "d") == {"neg": ["a"], "pos": ["b", "c"]}
    with pytest.raises(DataError, match="d: there is no column 'sentence'"):
        read(Datasets, tmp_path / "d", text="sentence")


@pytest.mark.parametrize("source", [Parquet, Excel, Datasets])
def test_what_is_not_a_table_is_a_sentence(source, tmp_path):
    pytest.importorskip({Parquet: "pyarrow", Excel: "openpyxl", Datasets: "datasets"}[source])
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/dataset_info.json").write_text("[")
    for name in ("a.xlsx", "d", "none"):
        with pytest.raises(DataError, match=rf"{name}.* (is not|needs|contains no|cannot be read)"):
            read(source, tmp_path / name)


@pytest.mark.parametrize(
    ("source", "module", "sentence"),
    [
        (
            Parquet,
            "pyarrow.parquet",
            "needs the package pyarrow, which is not installed: pip install 'nas-meta[parquet]'",
        ),
        (Excel, "openpyxl", "needs the package openpyxl, which is not installed: pip install 'nas-meta[excel]'"),
        (Datasets, "datasets", "needs the package datasets, which is not installed: pip install 'nas-meta[datasets]'"),
    ],
)
def test_a_missing_package_is_one_sentence(source, module, sentence, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError) as error:
        read(source, tmp_path)
    assert str(error.value) == f"{tmp_path} {sentence}"
