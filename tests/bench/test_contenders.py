import pytest
import torch

from bench.baselines import amplified_copy
from bench.contenders import EAGER, EARLY, FULL, FULL_FAST, FULL_PACKED, NAMES, SCORED_GRAPH, Workshop
from bench.cost import flops_per_image, resident_bytes
from bench.recipes import default_k
from bench.subjects import Subject, batch_of

LATER, HEAD = 2 * 9 * 64 * 8 * 8, 2 * 8 * 4
BASE = 2 * 9 * 64 * 3 * 8 + 2 * LATER + HEAD


def test_k_is_documented() -> None:
    assert [default_k(layers, 5) for layers in (20, 21, 53)] == [11, 12, 29]
    assert default_k(3, 3) == 1


@pytest.mark.parametrize("name", ["stacked", "deep copies", FULL, *SCORED_GRAPH.values()])
def test_every_way_gives_the_scores_of_copies(subject: Subject, name: str) -> None:
    workshop, images = Workshop(subject), subject.pools["benign"]
    expected = workshop.build("copies").call(images)
    found = workshop.build(name).call(images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert len(set(expected.tolist())) > 4


def test_early_exit_gives_the_full_verdicts(subject: Subject) -> None:
    assert subject.rule is not None
    workshop, images = Workshop(subject), subject.pools["benign"]
    limit = subject.rule.thresholds[0]
    full = workshop.build(FULL).call(images) > limit
    assert torch.equal(workshop.build(EARLY["benign"]).call(images) > limit, full)


def test_flops_are_exact(subject: Subject) -> None:
    """Variant 2 amplifies from the second layer on and repeats what comes after it: one convolution and
    the head. Variant 3 starts at the first layer: two convolutions and the head."""
    workshop, images = Workshop(subject), subject.pools["benign"][:2]

    def count(name: str) -> float:
        return flops_per_image(workshop.build(name).call, images)

    assert count(EAGER) == BASE
    assert count("copies") == count("deep copies") == count("stacked") == 3 * BASE
    assert count(FULL) == count(FULL_PACKED) == count(FULL_FAST) == BASE + 3 * LATER + 2 * HEAD
    assert count(EARLY["benign"]) <= count(FULL)


def test_weights_resident(subject: Subject) -> None:
    workshop = Workshop(subject)
    plain = resident_bytes(subject.network)
    held = {name: resident_bytes(workshop.build(name).holds) for name in ("stacked", "deep copies", FULL)}
    assert held == {"stacked": 3 * plain, "deep copies": plain, FULL: plain}
    assert plain < resident_bytes(workshop.build("copies").holds) <= 3 * plain
    assert plain < resident_bytes(workshop.build(FULL_PACKED).holds) < 2.1 * plain


def test_deep_copies_share_nothing(subject: Subject) -> None:
    variant = amplified_copy(subject.network, subject.order[-1:], 1.5)
    own = {tensor.data_ptr() for tensor in subject.network.state_dict().values()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in variant.state_dict().values())


def test_the_fast_engine_leaves_the_network_of_the_others_alone(subject: Subject) -> None:
    strides = [weight.stride() for weight in subject.network.parameters()]
    Workshop(subject).build(FULL_FAST)
    assert [weight.stride() for weight in subject.network.parameters()] == strides


def test_early_exit_needs_a_rule(subject: Subject) -> None:
    bare = Subject(**{**vars(subject), "rule": None})
    with pytest.raises(ValueError, match="--bundle"):
        Workshop(bare).build(EARLY["benign"])


def test_every_contender_can_be_built(subject: Subject) -> None:
    workshop = Workshop(subject)
    for name in NAMES:
        contender = workshop.build(name)
        assert len(contender.call(subject.pools[contender.traffic])) == 8


def test_batches_go_round_the_pool() -> None:
    pool = torch.arange(5)
    assert [batch_of(pool, 3, number).tolist() for number in range(3)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]
