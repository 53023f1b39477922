import pytest

from benchmark import definitions
from benchmark.errors import KdsegError
from benchmark.toolbox import drawn


@pytest.mark.parametrize("name", definitions.names("datasets"))
def test_every_dataset_is_valid(name):
    dataset = definitions.dataset(name)
    assert len(dataset.classes) == len(dataset.palette) == len(set(dataset.classes))
    assert {"train", "val"} <= set(dataset.splits)


@pytest.mark.parametrize("name", definitions.names("protocols"))
def test_every_protocol_is_for_known_datasets_and_has_both_families(name):
    protocol = definitions.protocol(name)
    assert set(protocol.datasets) <= set(definitions.names("datasets"))
    assert len(protocol.recipes) == 2


def test_the_drawn_dataset_is_what_the_generator_draws():
    dataset = definitions.dataset("drawn")
    assert dataset.generator == drawn.VERSION
    assert dataset.classes == drawn.CLASSES and dataset.palette == drawn.PALETTE
    assert {name: split.count for name, split in dataset.splits.items()} == drawn.COUNTS


def test_shown_texts_are_no_part_of_the_content_hash():
    dataset = definitions.dataset("drawn")
    assert definitions.definition_hash(dataset) == definitions.definition_hash(
        dataset.model_copy(update={"title": "x", "source": "y"})
    )
    assert definitions.definition_hash(dataset) != definitions.definition_hash(
        dataset.model_copy(update={"generator": 99})
    )


def test_unknown_names_come_with_near_matches():
    with pytest.raises(KdsegError, match="unknown dataset 'camvit'; did you mean camvid?"):
        definitions.dataset("camvit")
    with pytest.raises(KdsegError, match="unknown protocol 'dmo'; did you mean demo?"):
        definitions.protocol("dmo")
