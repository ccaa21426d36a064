"""A saved file is complete or absent."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from foresight.files import write_atomically, write_folder_atomically


def test_content_lands_under_its_name_and_nothing_else_stays(tmp_path):
    """Bytes, text and a writing function all give exactly the one file, in folders that are made as needed."""
    write_atomically(tmp_path / "a/b.bin", b"\x00\x01")
    write_atomically(tmp_path / "a/c.txt", "ü")
    write_atomically(tmp_path / "a/d.txt", lambda path: path.write_text(path.suffix))
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {
        "b.bin": b"\x00\x01",
        "c.txt": "ü".encode(),
        "d.txt": b".txt",
    }


@pytest.mark.parametrize("interruption", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, "old and whole"])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, interruption, before):
    """A full disk or Ctrl-C halfway leaves the old file, or none, and no temporary one."""
    target = tmp_path / "model.bin"
    if before:
        target.write_text(before)

    def half(path: Path) -> None:
        path.write_text("half of wh")
        raise interruption

    with pytest.raises(type(interruption)):
        write_atomically(target, half)
    assert [p.name for p in tmp_path.iterdir()] == (["model.bin"] if before else [])
    assert not before or target.read_text() == before


def test_a_disk_that_fails_to_sync_leaves_the_old_file(tmp_path, monkeypatch):
    """What did not reach the disk does not get the name."""
    target = tmp_path / "report.json"
    target.write_text("old")

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_atomically(target, "new")
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_complete_or_absent(tmp_path, monkeypatch):
    """A folder appears with all its files; when one cannot be written or synced there is none; an old one stays."""
    write_folder_atomically(tmp_path / "a/made", lambda folder: (folder / "x").write_text("1"))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["made"] and (tmp_path / "a/made/x").read_text() == "1"
    with pytest.raises(FileExistsError):
        write_folder_atomically(tmp_path / "a/made", lambda folder: None)

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_folder_atomically(tmp_path / "b", lambda folder: (folder / "x").write_text("1"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a/made/x").read_text() == "1"


def test_a_librarys_words_for_a_full_disk_become_the_disks(tmp_path, monkeypatch):
    """Libraries say it in their own way; where the disk is full, the error names the file that was to be, and nothing stays."""

    def fill(path):
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        write_atomically(tmp_path / "a.pt", fill)
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=3, f_frsize=4096))
    for write, name in ((write_atomically, "b.pt"), (write_folder_atomically, "folder")):
        with pytest.raises(OSError) as error:
            write(tmp_path / name, lambda path: fill(path / "x" if path.is_dir() else path))
        assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path / name)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "c.pt", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(tmp_path.iterdir()) == []
