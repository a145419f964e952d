"""Whatever is wrong with a path or a file is one line that says what and where; a few damaged rows among many are set aside."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from alignbench_data.reading import opening

from alignbench import UserError
from tests.data.writing import LINES, PACKINGS, ROWS, Rows, lines, parquet, put, source

TEXT = "\n".join(LINES).encode()


def refusal(path: object, **options: Any) -> str:
    with pytest.raises(UserError) as refused:
        source(path, **options)
    said = str(refused.value)
    assert len(said.splitlines()) == 1 and "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "needs data.path="),
        ("no/such/file.jsonl", "No such file or folder: data.path=no/such/file.jsonl"),
        ("~nouser/x", "data.path=~nouser/x: there is no home folder ~nouser"),
        ("a" * 5000, r"data.path=a{60}\.\.\.: too long for a path"),
        ("/" + "a/" * 3000, "too long for a path"),
        ("a\0b", "No such file or folder: data.path=a.b"),
        ("a\nb", r"No such file or folder: data.path=a\?b"),
        ("/dev/null", "is no file and no folder"),
    ],
)
def test_paths_that_lead_nowhere(path: str, said: str) -> None:
    import re

    assert re.search(said, refusal(path))


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "a link that leads nowhere" in refusal(tmp_path / "a")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "again").symlink_to(folder)
    assert "no data file in this folder" in refusal(folder)
    lines(folder / "x.jsonl", ROWS)
    assert source(folder).counts()["read"] == 40, "each file once"


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    assert f"{tmp_path}/b.jsonl is a link that leads nowhere: get the file" in refusal(tmp_path)
    lines(tmp_path / "train.jsonl", ROWS)
    assert f"{tmp_path}/b.jsonl" in source(tmp_path).description().notes[0], "but where it is not wanted"


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.json.gz", "x.csv.gz", "x.txt.gz"])
def test_nothing_but_empty_lines_is_not_read_to_its_end(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MOST_EMPTY", 5000)
    path = put(tmp_path / name, gzip.compress(b"\n" * 4_000_000))
    assert f"{name}, line 5001: more than 5,000 empty lines one after another" in refusal(path)
    start = b"prompt,chosen\n" if "csv" in name else b'{"prompt": "a"}\n'
    path = put(tmp_path / name, gzip.compress(start + b" \r\n" * 4_000_000))
    assert f"{name}, line 5002: more than 5,000 empty lines one after another" in refusal(path)
    some = b"\n" * 4000
    if "csv" not in name:
        assert source(put(path, gzip.compress(some.join(line.encode() for line in LINES[:3])))).counts()["pairs"] == 3


def test_folders_without_data(tmp_path: Path) -> None:
    assert "it has nothing" in refusal(tmp_path)
    put(tmp_path / "README.md", "x")
    assert "it has README.md" in refusal(tmp_path)


def test_a_hub_that_is_out_of_reach() -> None:
    said = refusal("someone/something")
    assert "data.path=someone/something: no such file or folder here" in said and "give data.path=<folder>" in said


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files(tmp_path: Path, packing: str) -> None:
    packed = PACKINGS[packing](TEXT)
    assert source(put(tmp_path / f"x.jsonl.{packing}", packed)).counts()["pairs"] == 40
    assert source(put(tmp_path / "named_wrongly.jsonl", packed)).counts()["pairs"] == 40
    said = refusal(put(tmp_path / f"cut.jsonl.{packing}", packed[: len(packed) // 2]))
    assert "not a whole" in said and f"cut.jsonl.{packing}" in said
    said = refusal(put(tmp_path / f"garbled.jsonl.{packing}", packed[:30] + bytes(40) + packed[70:]))
    assert f"garbled.jsonl.{packing}" in said


@pytest.mark.parametrize("packing", PACKINGS)
def test_bombs(tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_UNPACKED", 2**16)
    monkeypatch.setattr(opening, "MOST_OF_A_LINE", 2**15)
    many = PACKINGS[packing](b'{"prompt": "p"}\n' * 2**13)
    assert "unpacks to more than 65,536 bytes" in refusal(put(tmp_path / f"x.jsonl.{packing}", many))
    one = PACKINGS[packing](b'{"prompt": "' + b"a" * 40_000)
    assert "line 1: longer than 32,768 bytes" in refusal(put(tmp_path / f"x.jsonl.{packing}", one))


def test_files_that_are_empty_or_of_another_kind(tmp_path: Path) -> None:
    table_text = "prompt,chosen,rejected\n" + "\n".join(f"p{i},a{i},b{i}" for i in range(40))
    for name, content, said in (
        ("e.jsonl", b"", "e.jsonl is empty"),
        ("e.jsonl", b" \n\n", "e.jsonl is empty"),
        ("e.json.gz", gzip.compress(b""), "e.json.gz is empty"),
        ("e.parquet", b"", "e.parquet is empty"),
        ("x.parquet", b"hello", "not a whole Parquet file"),
        ("x.arrow", b"hello", "not a whole Arrow file"),
        ("x.bin", b"hello", "Name it .jsonl, .json"),
        ("x.jsonl", table_text.encode(), "x.jsonl, line 1: not JSON .* a table should be named .csv"),
        ("x.jsonl", TEXT.decode().encode("utf-16"), "x.jsonl is UTF-16 text. Save it as UTF-8"),
        ("x.jsonl", '{"prompt": "é"}'.encode("latin-1"), "x.jsonl, line 1: not UTF-8 text .*iconv -f latin1 -t utf-8"),
        ("x.jsonl", TEXT.replace(b"\n", b"\r"), "x.jsonl: its lines end in CR alone, .*save it with LF"),
        ("x.csv", table_text.replace("\n", "\r").encode(), "x.csv: its lines end in CR alone"),
        ("x.txt", b"one\rtwo\rthree", "x.txt: its lines end in CR alone"),
        (
            "x.jsonl",
            b'{"prompt": ' + b"1" * 5000 + b"}",
            "line 1: no row: a number of thousands of digits, .* a text in quotes",
        ),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        ("x.json", b"[" + TEXT.replace(b"\n", b",\n") + b",", "x.json, line 40: not JSON"),
        ("x.json", b"[1, 2]", "x.json, row 1: an object is needed, not a number"),
        ("x.json", b"[]", "0 rows read"),
        ("x.json", b"[" * 100_000, "line 1: not JSON .*recursion"),
        ("x.json", json.dumps({"train": ROWS, "test": ROWS}).encode(), "several lists .train, test."),
        ("x.csv", b"prompt,prompt\na,b\n", "x.csv, line 1: two columns have the name 'prompt'"),
        ("x.csv", b'prompt,chosen,rejected\n"a,b,c\n', "x.csv, line 2: not CSV"),
        ("x.csv", b"prompt,chosen,rejected\n\xe9,b,c\n", "x.csv, line 2: not UTF-8 text .*iconv"),
        ("x.csv", b"prompt;chosen;rejected\na,b;c\n", "x.csv, line 2: 2 values for 3 columns"),
        ("x.csv", b"prompt,chosen,rejected\na,b\nc,d\n", "x.csv, line 2: 2 values for 3 columns"),
    ):
        with pytest.raises(UserError, match=said):
            source(put(tmp_path / name, content))


def test_files_by_what_they_hold_and_not_by_their_name(tmp_path: Path) -> None:
    held = parquet(tmp_path / "x.parquet", ROWS).read_bytes()
    assert source(put(tmp_path / "y.jsonl", held)).counts()["pairs"] == 40
    assert source(put(tmp_path / "z.csv", TEXT)).counts()["pairs"] == 40
    assert source(put(tmp_path / "no_suffix", TEXT)).counts()["pairs"] == 40
    assert source(put(tmp_path / "o.json", json.dumps({"data": ROWS}, indent=1))).counts()["pairs"] == 40
    assert source(put(tmp_path / "one.json", json.dumps({"version": 1, "data": ROWS}))).counts()["pairs"] == 40
    for name, content in (
        ("l.txt", TEXT),
        ("l.txt", b"\xef\xbb\xbf" + TEXT),
        ("v.txt", json.dumps(ROWS, indent=1)),
        ("o.txt", json.dumps({"rows": ROWS})),
        ("l.txt.gz", gzip.compress(TEXT)),
        ("s.csv", "prompt;chosen;rejected\n" + "\n".join(f"p, {i};a;b" for i in range(40))),
        ("t.csv", "prompt\tchosen\trejected\n" + "\n".join(f"p; {i}\ta\tb" for i in range(40))),
        ("c.tsv", '"prompt",chosen,rejected\n' + "\n".join(f"p {i},a,b" for i in range(40))),
        ("q.csv", '"prompt",chosen,rejected,"a;b"\n' + "\n".join(f"p {i},a,b,c" for i in range(40))),
    ):
        assert (
            source(put(tmp_path / name, content)).counts() | {"read": 40, "pairs": 40}
            == source(tmp_path / name).counts()
        ), name
    for prompts in ('{"a": 1} is what?\n[1] is what?\n', '[Hello]\n{"\n'):
        assert source(put(tmp_path / "p.txt", prompts)).counts()["prompts, one a line"] == 2
    assert source(put(tmp_path / "bom.jsonl", b"\xef\xbb\xbf" + TEXT.replace(b"\n", b"\r\n"))).counts()["pairs"] == 40
    for name, damaged in (("cut", held[: len(held) // 2]), ("garbled", held[:100] + bytes(200) + held[300:])):
        assert "not a whole Parquet file" in refusal(put(tmp_path / f"{name}.parquet", damaged))


def test_saved_folders_that_are_damaged(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (held,) = (tmp_path / "saved").glob("*.arrow")
    assert source(held).counts()["pairs"] == 40
    put(tmp_path / "cut.arrow", held.read_bytes()[:-900])
    assert "not a whole Arrow file" in refusal(tmp_path / "cut.arrow")
    held.write_bytes(held.read_bytes()[:300])
    assert "not a whole folder of a saved dataset" in refusal(tmp_path / "saved")
    held.unlink()
    assert "not a whole folder of a saved dataset" in refusal(tmp_path / "saved")
    put(tmp_path / "saved" / "state.json", "{")
    assert "not a whole folder of a saved dataset" in refusal(tmp_path / "saved")


DAMAGED: dict[str, tuple[str, str]] = {
    "not JSON": ('{"prom', "not_json"),
    "brackets": ('{"prompt":' + "[" * 5000, "not_json"),
    "closed brackets": ('{"prompt":' + "[" * 5000 + "]" * 5000 + ',"chosen":"a","rejected":"b"}', "not_json"),
    "digits": ('{"prompt":' + "1" * 5000 + ',"chosen":"a","rejected":"b"}', "not_json"),
    "list": ("[1]", "not_an_object"),
    "surrogate": ('{"prompt":"a","chosen":"x \\ud83d","rejected":"y"}', "not_text"),
    "surrogate in a message": ('{"prompt":[{"role":"user","content":"\\udc00"}],"chosen":"x","rejected":"y"}', "not_text"),
    "NUL": ('{"prompt":"a\\u0000","chosen":"x","rejected":"y"}', "not_text"),
    "number": ('{"prompt":"a","chosen":3,"rejected":"y"}', "malformed"),
    "infinite": ('{"prompt":"a","responses":["x","y"],"scores":[1e999,1]}', "malformed"),
    "role": ('{"messages":[{"role":"tool","content":"x"},{"role":"assistant","content":"y"}]}', "malformed"),
    "no form": ('{"a":1}', "unknown_form"),
    "half": ('{"prompt":"a","chosen":"x"}', "unknown_form"),
    "no prompt": ('{"prompt":" ","chosen":"x","rejected":"y"}', "no_prompt"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_one_damaged_row_among_many_is_set_aside_and_counted(tmp_path: Path, name: str) -> None:
    damaged, reason = DAMAGED[name]
    path = put(tmp_path / "x.jsonl", "\n".join([*LINES[:7], damaged, *LINES[7:]]))
    data = source(path)
    assert data.counts() | {"read": 41, "pairs": 40, reason: 1} == data.counts()
    assert data.description().set_aside[reason].startswith(f"{path}, line 8: ")
    assert f"{path}, line 8: " in refusal(path, max_bad_share=0.0)
    two = put(tmp_path / "x.jsonl", "\n".join([*LINES[:7], damaged, *LINES[7:], damaged, damaged]))
    assert "3 of 43 rows cannot be read, more than data.max_bad_share=0.05 allows" in refusal(two)
    assert source(two, max_bad_share=0.1).counts()["pairs"] == 40


def test_rows_that_teach_nothing_are_no_damage(tmp_path: Path) -> None:
    odd: Rows = [{"prompt": "p", "chosen": "x", "rejected": "x"}, {"prompt": "p", "chosen": "", "rejected": "x"}]
    counts = source(lines(tmp_path / "x.jsonl", [*ROWS, *(odd * 20)])).counts()
    assert (counts["identical_responses"], counts["empty_response"], counts["pairs"]) == (20, 20, 40)


def test_refusals_name_the_columns_and_the_closest_reading(tmp_path: Path) -> None:
    def said(row: dict[str, Any], **options: Any) -> str:
        return refusal(lines(tmp_path / "x.jsonl", [row, row]), **options)

    typo = said({"prompt": "a", "choosen": "b", "rejected": "c"})
    assert "line 1: these columns make no form" in typo and "Columns: prompt, choosen, rejected." in typo
    assert "closest is pairs, which lacks chosen: name it by data.columns.chosen=choosen" in typo
    assert "which lacks rejected: name it by data.columns.rejected=<column>" in said({"prompt": "a", "chosen": "b"})
    wrong = said({"ask": "a", "best": "b", "worst": "c"}, columns={"prompt": "aks"})
    assert "data.columns.prompt=aks is no column (closest: 'ask')" in wrong
    same_start = {"ask": "a", "chosen": "Well, yes", "rejected": "Well, no"}
    for row in (ROWS[0], same_start):
        assert "data.columns.prompt=aks is no column" in said(row, columns={"prompt": "aks"})
    unused = refusal(lines(tmp_path / "x.jsonl", ROWS), columns={"subset": "topic"})
    assert "data.columns.subset=topic: no row has such a column. Columns: prompt, chosen, rejected." in unused
    assert "Unknown role 'promt' in data.columns. Did you mean 'prompt'?" in said(ROWS[0], columns={"promt": "x"})
    assert "data.where.lang: no such column" in said(ROWS[0], where={"lang": "en"})
    assert "Unknown split 'trian' in data.train_split. Choices: x.jsonl" in said(ROWS[0], train_split="trian")
    hostile = said({"a\nb\x1b[2J\ud800": "a"})
    assert r"Columns: a b [2J\ud800." in hostile, "what is quoted stays in its line and can be printed"


def test_settings_that_cannot_be() -> None:
    for options, said in (
        ({"rating": "a", "rating_weights": {"b": 1.0}}, "give one of them"),
        ({"streaming": True}, "needs data.max_rows"),
    ):
        assert said in refusal("x", **options)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", ROWS)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be read: Permission denied" in refusal(path)
