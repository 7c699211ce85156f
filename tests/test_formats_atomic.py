"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from refldnq.formats.atomic import atomic_path


def test_the_content_takes_the_name_at_the_end(tmp_path: Path) -> None:
    final = tmp_path / "note.txt"
    final.write_text("old", encoding="utf-8")
    with atomic_path(final) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert temporary.parent == tmp_path and temporary.suffix == ".part"
        assert final.read_text(encoding="utf-8") == "old"
    assert final.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_crash_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "note.txt"
    final.write_text("old", encoding="utf-8")
    with pytest.raises(error), atomic_path(str(final)) as temporary:
        temporary.write_text("ne", encoding="utf-8")
        raise error
    assert final.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    other = tmp_path / ".note.txt.abcdefgh.part"  # or left by one that was killed: that cannot be told
    other.write_text("half", encoding="utf-8")
    with atomic_path(tmp_path / "note.txt") as temporary:
        assert temporary != other
        temporary.write_text("new", encoding="utf-8")
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "new"
    assert other.read_text(encoding="utf-8") == "half"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_rename_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), atomic_path(tmp_path / "folder") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "nowhere" / "note.txt"):
        raise AssertionError("the block must not run")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "note.txt") as temporary:
            temporary.write_text("new", encoding="utf-8")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert (tmp_path / "note.txt").stat().st_mode & 0o777 == 0o640
