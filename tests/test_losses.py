"""The losses against a slow loop and autograd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone

from skxmc.losses import LOSSES, BinaryCrossEntropy, Loss, make_loss

# --- the slow truth -------------------------------------------------------------------------------


def slow_logistic(score, target):
    """-log of the chance of the target, written so that large scores do not overflow."""
    margin = score if target else -score
    return max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))


def slow_sigmoid(score):
    if score < 0:
        return math.exp(score) / (1 + math.exp(score))
    return 1 / (1 + math.exp(-score))


@st.composite
def batches(draw):
    """Scores, targets and weights; about a quarter of the weights is 0."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))

    def array(elements):
        return torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=elements)))

    return (
        array(st.floats(-30, 30, width=32)),
        array(st.sampled_from([0.0, 1.0])),
        array(st.sampled_from([0.0, 1.0, 0.5, 40.0])),
    )


@given(batch=batches())
def test_bce_is_the_weighted_sum_of_logistic_losses(batch):
    value, gradient = BinaryCrossEntropy().value_and_gradient(*batch)
    expected = 0.0
    assert gradient.shape == batch[0].shape
    for score, target, weight, slope in zip(*(a.flatten().tolist() for a in (*batch, gradient))):  # noqa: B905
        expected += weight * slow_logistic(score, target)
        wanted = weight * (slow_sigmoid(score) - target)
        assert slope == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert isinstance(value, float)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
@given(batch=batches())
def test_every_closed_form_agrees_with_autograd(loss, batch):
    value, gradient = loss.value_and_gradient(*batch)
    expected, expected_gradient = Loss.value_and_gradient(loss, *batch)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
    assert not gradient.requires_grad


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
def test_the_scores_are_left_as_they_are(loss):
    batch = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    before = [a.clone() for a in batch]
    loss.value_and_gradient(*batch)
    assert all(torch.equal(one, other) for one, other in zip(batch, before, strict=True))


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
@given(batch=batches(), other=st.floats(-1e4, 1e4, width=32))
def test_places_of_weight_0_have_no_influence(loss, batch, other):
    scores, targets, weights = batch
    value, gradient = loss.value_and_gradient(*batch)
    assert (gradient[weights == 0] == 0).all()
    off = weights == 0
    changed, changed_gradient = loss.value_and_gradient(
        torch.where(off, torch.tensor(other), scores),
        torch.where(off, 1 - targets, targets),
        weights,
    )
    assert changed == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert torch.equal(changed_gradient, gradient)


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
def test_extreme_scores_give_finite_results(loss):
    scores = torch.tensor([[1e4, -1e4, 1e4, -1e4, 0.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]])
    value, gradient = loss.value_and_gradient(scores, targets, torch.ones(1, 5))
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_bce_of_extreme_scores_is_their_distance():
    scores = torch.tensor([[1e4, -1e4, 1e4, -1e4]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    value, gradient = BinaryCrossEntropy().value_and_gradient(scores, targets, torch.ones(1, 4))
    assert value == pytest.approx(2e4)
    assert gradient.tolist() == [[0, -1, 1, 0]]


def test_a_loss_needs_no_more_than_its_forward():
    class SquaredError(Loss):
        def __init__(self, scale=1.0):
            self.scale = scale

        def forward(self, scores, targets, weights):
            return self.scale * (weights * (scores - targets) ** 2).sum()

    batch = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.5]])
    value, gradient = clone(SquaredError(3.0)).value_and_gradient(*batch)
    assert value == 4.5
    assert gradient.tolist() == [[6.0, 3.0]]


def test_the_base_has_no_forward():
    with pytest.raises(NotImplementedError):
        Loss().value_and_gradient(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))


def test_names_stand_for_losses_and_objects_for_themselves():
    assert type(make_loss("bce")) is BinaryCrossEntropy
    loss = BinaryCrossEntropy()
    assert make_loss(loss) is loss
    with pytest.raises(ValueError, match=r"loss='bec' is unknown.*'bce'"):
        make_loss("bec")


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_parameter_objects(name):
    loss = make_loss(name)
    assert repr(clone(loss)) == repr(loss)
    assert clone(loss).get_params() == loss.get_params()
