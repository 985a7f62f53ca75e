"""The public names are those of the snapshot."""

from tools.public_names import SNAPSHOT, public_names


def test_public_names_are_those_of_the_snapshot() -> None:
    promised, found = set(SNAPSHOT.read_text(encoding="utf-8").split()), set(public_names())
    gone, new = sorted(promised - found), sorted(found - promised)
    assert (gone, new) == ([], []), (
        f"gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}. If this is meant, run "
        "`python tools/public_names.py` and note it in CHANGELOG.md; a name goes only after a deprecation "
        "(CONTRIBUTING.md, Public names)."
    )


def test_no_name_is_listed_twice() -> None:
    names = public_names()
    assert len(names) == len(set(names))
