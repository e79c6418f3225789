"""The door: what `topstep_sync` offers by name."""

import ast
import importlib
import pickle
import re
from pathlib import Path

import pytest

import topstep_sync

README = Path(__file__).parent.parent / "README.md"


def type_checking_imports() -> dict[str, str]:
    """Name → module, as type checkers and editors see the package."""
    tree = ast.parse(Path(topstep_sync.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    return {a.name: str(n.module) for n in guarded.body if isinstance(n, ast.ImportFrom) for a in n.names}


def reference_list() -> list[str]:
    """The public names that the README's reference section lists, in its order."""
    section = re.search(r"^## Reference$(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert section, "README.md has a section named Reference"
    return re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)


def test_the_list_is_sorted_and_has_no_twins() -> None:
    """`__all__` is sorted, and names nothing twice."""
    assert sorted(set(topstep_sync.__all__)) == topstep_sync.__all__


def test_readme_lists_what_is_public() -> None:
    """The README's reference lists exactly the public names."""
    assert topstep_sync.__all__ == sorted(reference_list())


@pytest.mark.parametrize("name", topstep_sync.__all__)
def test_every_name_is_there(name: str) -> None:
    """Each public name is the object of its room, and says so itself."""
    value = getattr(topstep_sync, name)
    home = importlib.import_module(value.__module__)
    assert value is getattr(home, name)


def test_type_checkers_see_the_same() -> None:
    """What is imported for type checkers is what is looked up when the program runs."""
    looked_up = {name: f"topstep_sync.{room}" for name, room in topstep_sync._ROOM_OF.items()}
    assert looked_up == type_checking_imports()
    assert topstep_sync.__all__ == sorted(looked_up)


def test_dir_names_everything() -> None:
    """`dir(topstep_sync)`, and with it completion, shows public names that were not used yet."""
    assert set() == {*topstep_sync.__all__, "__version__"} - set(dir(topstep_sync))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there fails as in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'Sessoin'"):
        topstep_sync.Sessoin  # noqa: B018 - the look-up is the test


def test_classes_pickle_by_their_public_name() -> None:
    """A public class that travels to another process arrives as itself."""
    assert topstep_sync.OrderSide.BUY is pickle.loads(pickle.dumps(topstep_sync.OrderSide.BUY))


def test_the_version_is_a_version() -> None:
    """`__version__` has three numbers."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", topstep_sync.__version__)
