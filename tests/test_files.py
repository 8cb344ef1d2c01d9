"""Files that appear whole or not at all."""
import pytest
import torch

from d3ad.infra import files


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    file = tmp_path / "new" / "table.csv"
    files.write_whole(file, "a\n")
    with pytest.raises(OSError, match="disk full"), files.whole_file(file) as part:
        part.write_text("half of")
        assert file.read_text() == "a\n"
        raise OSError("disk full")
    assert file.read_text() == "a\n" and [path.name for path in file.parent.iterdir()] == ["table.csv"]


def test_tensors_and_what_belongs_to_them_come_back(tmp_path):
    turned = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    files.save_tensors(tmp_path / "x.safetensors", {"a": turned, "b": torch.tensor(3)},
                       {"losses": [0.5], "name": "Löß"})
    tensors, about = files.load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], turned) and int(tensors["b"]) == 3 and about == {"losses": [0.5], "name": "Löß"}


def test_tensors_that_share_memory_are_stored(tmp_path):
    whole = torch.arange(6.0)
    files.save_tensors(tmp_path / "x.safetensors", dict(a=whole, b=whole, c=whole[2:]), {})
    tensors, _ = files.load_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(tensors[name], expected) for name, expected in dict(a=whole, b=whole, c=whole[2:]).items())


def test_a_folder_appears_only_when_it_is_whole_and_the_first_one_stays(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt), files.appearing(folder) as part:
        (part / "x").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    for content in ("first", "second"):
        with files.appearing(folder) as part:
            (part / "x").write_text(content)
    assert (folder / "x").read_text() == "first" and [path.name for path in tmp_path.iterdir()] == ["model"]
