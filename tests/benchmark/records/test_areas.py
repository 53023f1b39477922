import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.evaluation import IoUMetric
from PIL import Image

from benchmark.records.areas import scores
from benchmark.spec import definitions
from benchmark.training.evaluation import count_areas
from tests.golden.cases import cases


def masks(classes):
    shape = st.tuples(st.integers(1, 9), st.integers(1, 9))
    return shape.flatmap(
        lambda size: st.tuples(
            st.lists(st.integers(0, classes - 1), min_size=size[0] * size[1], max_size=size[0] * size[1]),
            st.lists(st.sampled_from([*range(classes), 255]), min_size=size[0] * size[1], max_size=size[0] * size[1]),
        ).map(lambda pair: tuple(torch.tensor(values).reshape(size) for values in pair))
    )


@given(masks(5))
def test_areas_equal_those_of_mmseg(pair):
    prediction, label = pair
    expected = torch.stack(IoUMetric.intersect_and_union(prediction, label, 5, 255)).long()
    assert torch.equal(count_areas(prediction, label, 5), expected)
    both = count_areas(torch.stack([prediction, prediction.flip(0)]), torch.stack([label, label]), 5)
    assert torch.equal(both[0], expected) and torch.equal(both[1], count_areas(prediction.flip(0), label, 5))


@given(masks(4))
def test_a_perfect_prediction_scores_100_and_only_present_classes_count(pair):
    _, label = pair
    perfect = scores(count_areas(label.where(label != 255, 0), label, 4).numpy())
    if (label != 255).any():
        assert perfect.miou == perfect.aacc == 100
        assert (~np.isnan(perfect.iou)).sum() == len(set(label[label != 255].tolist()))
    else:
        assert np.isnan(perfect.miou)


def test_absent_but_predicted_counts_as_zero_and_absent_from_both_is_left_out():
    areas = count_areas(torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1]]), 4).numpy()
    found = scores(areas)
    assert found.iou[:3].tolist() == [100, 50, 0] and np.isnan(found.iou[3])
    assert found.miou == 50
    assert scores(areas, "cirkd").miou == 37.5


@pytest.mark.parametrize("case", cases("metric.miou"))
def test_both_conventions_equal_the_reference(case):
    classes = case.hyper["num_classes"]
    pairs = zip(case.tensor("pred").flatten(0, 1), case.tensor("label").flatten(0, 1), strict=True)
    areas = np.stack([count_areas(prediction, label, classes).numpy() for prediction, label in pairs])
    expected = case.expected
    assert scores(areas, "cirkd").miou / 100 == pytest.approx(float(expected["out.miou_released"]), abs=1e-6)
    assert scores(areas).miou / 100 == pytest.approx(float(expected["out.miou_nanmean"]), abs=1e-6)
    np.testing.assert_allclose(scores(areas).iou / 100, expected["out.iou_nan"], atol=1e-6)
    np.testing.assert_array_equal(areas.sum(0)[0], expected["out.total_inter"])


def test_iou_equals_cityscapes_own_evaluator(tmp_path, monkeypatch):
    """The same predictions, as labelIds, through the script that Cityscapes' server runs."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # gone in numpy 2.4
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluator  # noqa: N813

    ids = np.array(definitions.dataset("cityscapes").label_ids, np.uint8)
    rng = np.random.default_rng(0)
    areas, pictures, truths = [], [], []
    for index in range(3):
        label = rng.choice([*range(15), 255], (40, 60))  # four classes are in no truth
        wrong = rng.random(label.shape) < 0.4
        prediction = np.where(wrong | (label == 255), rng.integers(0, 17, label.shape), label)
        areas.append(count_areas(torch.tensor(prediction), torch.tensor(label), 19).numpy())
        name = f"frankfurt_00000{index}_000019"
        pictures.append(str(tmp_path / f"{name}_pred.png"))
        truths.append(str(tmp_path / f"{name}_gtFine_labelIds.png"))
        Image.fromarray(ids[prediction]).save(pictures[-1])
        # void is 0 (unlabelled) in Cityscapes' own files, and one of the ids that are not evaluated
        Image.fromarray(np.where(label == 255, 3, ids[np.minimum(label, 18)]).astype(np.uint8)).save(truths[-1])
    evaluator.args.evalInstLevelScore = evaluator.args.JSONOutput = False
    evaluator.args.quiet = True
    theirs = evaluator.evaluateImgLists(pictures, truths, evaluator.args)
    ours = scores(np.stack(areas))
    for name, iou in zip(definitions.dataset("cityscapes").classes, ours.iou, strict=True):
        assert theirs["classScores"][name] * 100 == pytest.approx(iou, nan_ok=True)
    # Their mean leaves out classes that are nan; classes 15 and 16 are predicted but absent, and count as 0 for both.
    assert theirs["averageScoreClasses"] * 100 == pytest.approx(ours.miou)
    assert ours.iou[15] == ours.iou[16] == 0 and np.isnan(ours.iou[17:]).all()
    assert scores(np.stack(areas), "cirkd").miou == pytest.approx(ours.miou * 17 / 19)
