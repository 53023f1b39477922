from __future__ import annotations

import pytest
import torch

from benchmark.core.errors import KdsegError
from benchmark.method.recipes import (
    Bundle,
    Codebase,
    codebase,
    make_method,
    method_setting,
    recipe,
    recipe_hyper,
    recipe_names,
    recipe_note,
)
from benchmark.spec import definitions
from benchmark.spec.networks import Pair, TapShape, network

SHAPES = {"logits": TapShape(channels=3, stride=8), "pre_classifier": TapShape(channels=6, stride=8)}
WIDER = SHAPES | {"pre_classifier": TapShape(channels=8, stride=8)}


@pytest.mark.parametrize("name", recipe_names())
def test_every_number_of_a_recipe_is_one_its_terms_have_and_has_a_source(name: str) -> None:
    code, found = recipe(name)
    assert code.repository.startswith("https://") and code.commit
    assert found.title and all(source.strip() for source in found.sources.values())
    known = set(recipe_hyper(name))
    for dataset in definitions.names("datasets"):
        hyper = recipe_hyper(name, dataset)
        assert set(hyper) == known
        assert make_method(name, hyper).hyper() == hyper
        assert {key for key, value in hyper.items() if value != recipe_hyper(name)[key]} == set(
            found.changes.get(dataset, {})
        )


def test_numbers_are_those_of_the_scripts() -> None:
    cwd = recipe_hyper("cwd@cirkd")
    assert (cwd["kd.weight"], cwd["cwd.feature_weight"], cwd["cwd.weight"], cwd["cwd.tau"]) == (1, 50, 3, 4)
    assert (cwd["skd.generator_weight"], cwd["skd.discriminator_weight"]) == (0.001, 0.1)
    assert (cwd["skd.pixel_weight"], cwd["skd.pairwise_weight"]) == (0, 0)
    segformer = recipe_hyper("cwd@cirkd-segformer")
    assert (segformer["cwd.feature_weight"], segformer["cwd.weight"]) == (5, 0.3)
    assert [recipe_hyper("cirkd@cirkd", name)["cirkd.pixel_weight"] for name in ("cityscapes", "voc", "ade20k")] == [
        0.1,
        0.01,
        0.1,
    ]
    af = {name: recipe_hyper("afdcd@afdcd", name) for name in ("cityscapes", "voc", "ade20k", "camvid")}
    assert [v["kd.weight"] for v in af.values()] == [1, 1, 0.5, 1]
    assert [v["afdcd.fd_weight"] for v in af.values()] == [2e-6, 1e-6, 1e-6, 8e-6]
    assert [v["afdcd.ctr_weight"] for v in af.values()] == [0.005, 0.005, 0.04, 0.01]


def test_a_bundle_is_the_sum_of_its_terms_with_their_parts() -> None:
    torch.manual_seed(0)
    method = make_method("cwd@cirkd", recipe_hyper("cwd@cirkd") | {"skd.width": 4})
    method.attach(SHAPES, WIDER)
    assert set(method.parts) == {"skd_discriminator", "cwd_align"}
    assert {key.partition(".")[0] for key in method.state_dict()} == set(method.parts)
    assert method.parts["skd_discriminator"].optimizer["type"] == "Adam"
    z, f = torch.randn(2, 3, 64, 64), torch.randn(2, 6, 64, 64)
    z_t, f_t = torch.randn(2, 3, 64, 64), torch.randn(2, 8, 64, 64)
    ours, theirs = {"logits": z, "pre_classifier": f}, {"logits": z_t, "pre_classifier": f_t}
    target = torch.zeros(2, 512, 512, dtype=torch.long)
    terms = method.losses(ours, theirs, target, 0)
    assert set(terms) == {"kd.kd", "skd.generator", "skd.discriminator", "cwd.cwd", "cwd.cwd_feature"}
    kd = make_method("kd", {"weight": 1.0}).losses(ours, theirs, target, 0)
    assert torch.equal(terms["kd.kd"], kd["kd"])


def test_parts_of_a_bundle_are_trained_and_moved_as_one() -> None:
    method = make_method("fitnet@cirkd", recipe_hyper("fitnet@cirkd"))
    method.attach(SHAPES, WIDER)
    method.double()
    assert method.components[1].align.weight.dtype == torch.float64
    assert [p.numel() for p in method.parameters()] == [6 * 8]


def test_version_rises_with_any_component(monkeypatch) -> None:
    before = method_setting("cwd@cirkd", {})
    from baselines.cwd import CWD

    monkeypatch.setattr(CWD, "version", CWD.version + 1)
    assert method_setting("cwd@cirkd", {}).version == before.version + 1


def test_a_setting_says_what_was_changed() -> None:
    assert method_setting("cwd@cirkd", {}).variant == "CWD @cirkd"
    assert method_setting("cwd@cirkd", {"skd.width": 8}).variant == "CWD @cirkd (skd.width=8)"
    assert method_setting("cirkd@cirkd", {}, "voc").hyper["cirkd.pixel_weight"] == 0.01


def test_notes_mark_weights_that_are_used_where_their_authors_did_not() -> None:
    cnn, transformer = network("deeplabv3_mbv2"), network("segformer_mit_b0")
    assert recipe_note("kd", "camvid") == ""
    assert recipe_note("cwd@cirkd", "cityscapes", Pair(student=cnn, teacher=cnn)) == ""
    assert recipe_note("cwd@cirkd", "ade20k") == "cwd@cirkd: weights carried over from cityscapes"
    both = recipe_note("cwd@cirkd", "camvid", Pair(student=cnn, teacher=transformer))
    assert both == "cwd@cirkd: weights carried over from cityscapes, weights of CNN → CNN pairs"
    own = Pair(student=transformer, teacher=transformer)
    assert recipe_note("cwd@cirkd-segformer", "cityscapes", own) == ""


@pytest.mark.parametrize(
    ("name", "hyper", "said"),
    [
        ("cwd@cirk", {}, "unknown recipe 'cwd@cirk'; did you mean cwd@cirkd"),
        ("cdw@cirkd", {}, "did you mean cwd@cirkd"),
        ("cwd@cirkd", {"cwd.taw": 2.0}, "did you mean cwd.tau"),
        ("cwd@cirkd", {"cwd.tau": -1.0}, "tau"),
    ],
)
def test_wrong_names_and_values_are_one_clear_line(name: str, hyper: dict, said: str) -> None:
    with pytest.raises(KdsegError, match=said) as error:
        method_setting(name, hyper)
    assert "\n" not in str(error.value)


def test_changes_without_a_source_are_refused(tmp_path, monkeypatch) -> None:
    from benchmark.method import recipes

    text = (
        "name: mine\nrepository: https://x\ncommit: abc\nstudent: cnn\nteacher: cnn\nrecipes:\n  kd:\n    title: KD\n"
    )
    text += "    terms: {kd: {}}\n    sources: {cityscapes: a script}\n    changes: {voc: {kd.tau: 2.0}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    with pytest.raises(KdsegError, match="no source"):
        codebase("mine")


def test_a_bundle_skips_with_the_reason_of_its_component(monkeypatch) -> None:
    from baselines.cwd import CWD

    monkeypatch.setattr(CWD, "skip", lambda self, pair: "not on Mondays")
    pair = Pair(student=network("deeplabv3_mbv2"), teacher=network("segformer_mit_b0"))
    assert make_method("cwd@cirkd", recipe_hyper("cwd@cirkd")).skip(pair) == "cwd: not on Mondays"
    assert isinstance(codebase("cirkd"), Codebase) and issubclass(Bundle, torch.nn.Module)
