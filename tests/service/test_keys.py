from __future__ import annotations

from pathlib import Path

import pytest

from annotator.errors import AnnotatorError
from service.keys import Caller, Keys, read_keys
from service.settings import Settings, read_settings

KEYS = ["a-key-of-the-tests-0123456789", "another-key-of-the-tests-9876"]


def key_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_file(tmp_path: Path) -> None:
    path = key_file(tmp_path / "keys", f"# ours\n\n{KEYS[0]}\n  {KEYS[1]}  \n")
    keys = read(path)
    assert all(keys.caller(key.encode()) for key in KEYS)
    assert not any(map(keys.caller, (b"", b"# ours", KEYS[0][:-1].encode(), b"x" * 99)))


def read(path: Path) -> Keys:
    keys = read_keys(Settings(api_key_file=path))
    assert keys is not None
    return keys


def test_roles_and_names_in_a_key_file(tmp_path: Path) -> None:
    text = f"read:{KEYS[0]}\n correct:{KEYS[1]}  Ada Lovelace \n{'other:' + 'k' * 16}\n"
    keys = read(key_file(tmp_path / "keys", text))
    reader, corrector, bare = (keys.caller(key.encode()) for key in (*KEYS, "other:" + "k" * 16))
    assert corrector == Caller("Ada Lovelace", "correct")
    assert reader is not None and reader.role == "read" and KEYS[0] not in reader.name
    assert bare is not None and bare.role == "annotate" and bare.may("read")
    assert not bare.may("correct") and not reader.may("annotate") and corrector.may("annotate")
    assert keys.have("correct") and keys.caller(f"read:{KEYS[0]}".encode()) is None


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (KEYS[0], 0o660, "users other than its owner may change it.*chmod 600"),
        (KEYS[0], 0o644, "others than its group read it"),
        (KEYS[0], 0o602, "users other than its owner"),
        ("short-secret", 0o600, "line 1: the key has fewer than 16 characters"),
        (f"{KEYS[0]}\nwith space in it 123", 0o600, "line 2: a key is of printable ASCII"),
        ("schlüssel-schlüssel", 0o600, "line 1: a key is of printable ASCII"),
        ("# nothing\n", 0o600, "holds no key"),
    ],
)
def test_key_files_that_are_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(AnnotatorError, match=f"(?s){message}") as caught:
        read_keys(Settings(api_key_file=key_file(tmp_path / "keys", text, mode)))
    assert "secret" not in str(caught.value) and KEYS[0] not in str(caught.value)


def test_its_group_may_read_a_key_file(tmp_path: Path) -> None:
    assert read_keys(Settings(api_key_file=key_file(tmp_path / "keys", KEYS[0], 0o440)))


def test_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANNOTATOR_API_KEYS", f"{KEYS[0]},  correct:{KEYS[1]} Ada\n")
    settings = read_settings(host="0.0.0.0")
    assert KEYS[0] not in settings.model_dump_json() + repr(settings)
    keys = read_keys(settings)
    assert keys is not None and keys.caller(KEYS[0].encode())
    assert keys.caller(KEYS[1].encode()) == Caller("Ada", "correct")
    third = "a-third-key-in-a-file-4711"
    both = read_keys(read_settings(api_key_file=key_file(tmp_path / "keys", third)))
    assert both is not None and both.caller(third.encode()) and both.caller(KEYS[0].encode())
    keys.replace_by(both)
    assert keys.caller(third.encode())
    for wrong, message in (("", "holds no key"), ("short", "key 1: the key has fewer than 16")):
        monkeypatch.setenv("ANNOTATOR_API_KEYS", wrong)
        with pytest.raises(AnnotatorError, match=f"ANNOTATOR_API_KEYS.*{message}"):
            read_keys(read_settings())


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="cannot be read: No such file"):
        read_keys(Settings(api_key_file=tmp_path / "keys"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(AnnotatorError, match="is not text"):
        read_keys(Settings(api_key_file=tmp_path / "binary"))
