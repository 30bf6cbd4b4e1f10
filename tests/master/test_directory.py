"""A directory is a sorted mapping that can be paged while it changes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gfsmaster import directory as directory_module
from gfsmaster.directory import Directory

names = st.binary(min_size=1, max_size=3)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["insert", "remove"]), names), max_size=300), st.integers(1, 7))
def test_it_behaves_as_a_sorted_dict(steps: list[tuple[str, bytes]], limit: int) -> None:
    directory, model = Directory(b"d"), {}
    small = directory_module.BUCKET_ENTRIES_MAX, directory_module.BUCKET_ENTRIES_MIN
    directory_module.BUCKET_ENTRIES_MAX, directory_module.BUCKET_ENTRIES_MIN = 8, 3  # type: ignore[misc]
    try:
        for number, (step, name) in enumerate(steps, start=1):
            if step == "insert" and name not in model:
                directory.insert(name, number)
                model[name] = number
            elif step == "remove" and name in model:
                directory.remove(name)
                del model[name]
            assert directory.find(name) == model.get(name, 0)
    finally:
        directory_module.BUCKET_ENTRIES_MAX, directory_module.BUCKET_ENTRIES_MIN = small  # type: ignore[misc]
    assert list(directory) == sorted(model.items())
    assert len(directory) == len(model)
    paged: list[tuple[bytes, int]] = []
    after = b""
    while page := directory.page(after, limit):
        assert len(page) <= limit
        paged += page
        after = page[-1][0]
    assert paged == sorted(model.items())


def test_a_listing_goes_on_where_it_was_although_its_last_name_is_gone() -> None:
    directory = Directory(b"d")
    for number in range(2000):
        directory.insert(b"%05d" % number, number + 1)
    page = directory.page(b"", 700)
    for name, _ in page:
        directory.remove(name)
    assert directory.page(page[-1][0], 1) == [(b"00700", 701)]
    assert len(directory) == 1300
