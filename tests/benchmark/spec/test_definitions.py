import pytest

from benchmark.core.errors import KdsegError
from benchmark.core.schema import parse
from benchmark.data import drawn
from benchmark.spec import definitions
from benchmark.spec.networks import Family

ONE_FAMILY = {"cirkd-wd5e-4": {Family.TRANSFORMER}, "cirkd-segformer": {Family.CNN}}
"""Protocols that were run for one family only, and the other one."""


@pytest.mark.parametrize("name", definitions.names("datasets"))
def test_every_dataset_is_valid(name):
    dataset = definitions.dataset(name)
    assert len(dataset.classes) == len(dataset.palette) == len(set(dataset.classes))
    assert {"train", "val"} <= set(dataset.splits)


@pytest.mark.parametrize("name", definitions.names("protocols"))
def test_every_protocol_is_for_known_datasets_and_has_both_families(name):
    protocol = definitions.protocol(name)
    assert set(protocol.datasets) <= set(definitions.names("datasets"))
    assert set(Family) - set(protocol.recipes) == ONE_FAMILY.get(name, set())
    for family in protocol.recipes:
        for dataset in protocol.datasets:
            recipe = protocol.recipe(family, dataset)
            assert recipe.data.iterations > recipe.optim.warmup and recipe.data.select_on == "val"


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


BEFORE = {
    "drawn": "6c6d92e2a0240a33",
    "camvid": "a690e4c24fa5f9d5",
    "demo": "644ceca6a1b10c6b",
    "camvid-small": "5b924b85e250352e",
}
"""Hashes in the ids of committed runs."""


@pytest.mark.parametrize("name", BEFORE)
def test_definitions_of_committed_runs_have_kept_their_hashes(name):
    load = definitions.dataset if name in ("drawn", "camvid") else definitions.protocol
    assert definitions.definition_hash(load(name)) == BEFORE[name]


def test_where_files_lie_and_what_is_inferred_is_no_part_of_the_content_hash():
    voc, cirkd = definitions.dataset("voc"), definitions.protocol("cirkd")
    split = voc.splits["train"].model_copy(update={"official": "other"})
    moved = {"within": (), "own_labels": "", "label_ids": (1,), "splits": voc.splits | {"train": split}}
    assert definitions.definition_hash(voc) == definitions.definition_hash(voc.model_copy(update=moved))
    recipe = cirkd.recipes[Family.CNN].model_copy(update={"inferred": "other"})
    told = {"recipes": cirkd.recipes | {Family.CNN: recipe}, "published_selection": "unknown"}
    assert definitions.definition_hash(cirkd) == definitions.definition_hash(cirkd.model_copy(update=told))
    other = {"per_dataset": {"voc": {Family.CNN: {"data.batch": 8}}}}
    assert definitions.definition_hash(cirkd) != definitions.definition_hash(cirkd.model_copy(update=other))


CODEBASE = [  # spec: CIRKD 2d8ad0f, CIRKD dab64db, DIST 2418f18; crop, batch, iterations, optimiser, lr, weight decay
    ("cirkd", "cityscapes", "cnn", (512, 1024), 16, 40_000, "SGD", 0.02, 1e-4),
    ("cirkd", "voc", "cnn", (512, 512), 16, 40_000, "SGD", 0.02, 1e-4),
    ("cirkd", "ade20k", "cnn", (512, 512), 16, 40_000, "SGD", 0.02, 1e-4),
    ("cirkd", "camvid", "cnn", (360, 360), 16, 40_000, "SGD", 0.02, 1e-4),
    ("cirkd", "cityscapes", "transformer", (512, 1024), 16, 40_000, "AdamW", 6e-5, 0.01),
    ("cirkd-segformer", "cityscapes", "transformer", (1024, 1024), 8, 160_000, "AdamW", 2e-4, 1e-4),
    ("cirkd-v2", "cityscapes", "cnn", (512, 1024), 8, 80_000, "SGD", 0.01, 1e-4),
    ("cirkd-v2", "ade20k", "cnn", (512, 512), 16, 80_000, "SGD", 0.02, 1e-4),
    ("cirkd-wd5e-4", "cityscapes", "cnn", (512, 1024), 16, 40_000, "SGD", 0.02, 5e-4),
    ("mmseg", "cityscapes", "cnn", (512, 1024), 8, 80_000, "SGD", 0.01, 5e-4),
    ("mmseg", "cityscapes", "transformer", (1024, 1024), 8, 160_000, "AdamW", 6e-5, 0.01),
    ("mmseg", "ade20k", "transformer", (512, 512), 16, 160_000, "AdamW", 6e-5, 0.01),
    ("camvid", "camvid", "cnn", (360, 360), 16, 40_000, "SGD", 0.02, 1e-4),
]


@pytest.mark.parametrize(("name", "dataset", "family", *"abcdef"), CODEBASE, ids=lambda value: str(value))
def test_recipes_are_those_of_the_codebases(name, dataset, family, a, b, c, d, e, f):
    found = definitions.protocol(name).recipe(Family(family), dataset)
    data, optim = found.data, found.optim
    assert (data.crop, data.batch, data.iterations, optim.optimizer, optim.lr, optim.weight_decay) == (a, b, c, d, e, f)
    if name.startswith("cirkd"):
        assert (data.scale, data.scale_step, data.photometric, data.max_class_ratio) == ((0.5, 2.0), 0.1, False, 1.0)
        assert definitions.protocol(name).val_interval == 800 and definitions.protocol(name).val_batch == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"camvid": {"cnn": {"data.crop": [8, 8]}}}, "protocol demo: per_dataset: unknown dataset 'camvid'"),
        (
            {"drawn": {"cnn": {"data.corp": [8, 8]}}},
            "per_dataset.drawn.cnn: unknown override 'data.corp'; did you mean",
        ),
        ({"drawn": {"cnn": {"data": 8}}}, "per_dataset.drawn.cnn: unknown override 'data'"),
        ({"drawn": {"cnn": {"data.batch": 0}}}, "per_dataset.drawn.cnn: data.batch: Input should be greater than 0"),
    ],
)
def test_a_wrong_exception_for_a_dataset_is_one_line(changes, said):
    tree = definitions.protocol("demo").model_dump(mode="json") | {"per_dataset": changes}
    with pytest.raises(KdsegError, match=said):
        parse(definitions.Protocol, tree, "demo.yaml")
