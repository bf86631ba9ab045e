import math

import pytest
import torch
from torch import Tensor

from leanface.distillation.attention import ATTENTIONS, build_attention
from leanface.errors import ConfigError

MAPPED = [name for name, attention in ATTENTIONS.items() if attention(1.0, []).reads_maps]


def maps(channels: int, seed: int, faces: int = 2) -> list[Tensor]:
    """Feature maps of two stages, as they come out of a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return [(3 * torch.randn(faces, channels, *size, generator=generator)).relu() for size in ((5, 4), (3, 2))]


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_shapes_finiteness_and_gradient(name: str, temperature: float) -> None:
    attention = build_attention(name, temperature, [[1, 4, 6], [0, 2, 7]])
    if attention.reads_maps:
        student, original = [stage.requires_grad_() for stage in maps(3, 1)], maps(8, 0)
        term = attention(student, attention.of_teacher(original))
        term.sum().backward()
        assert all(stage.grad is not None and bool(torch.isfinite(stage.grad).all()) for stage in student)
    else:
        term = attention.importance(torch.tensor([0.5, 3.0]))
    assert term.shape == (2,)
    assert bool(torch.isfinite(term).all())
    assert bool((term > 0).all())


@pytest.mark.parametrize("name", MAPPED)
def test_nothing_to_learn_where_both_look_alike(name: str) -> None:
    attention, original = build_attention(name, 2.0, [range(8), range(8)]), maps(8, 0)
    assert float(attention(original, attention.of_teacher(original)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", MAPPED)
def test_each_face_pays_for_itself(name: str) -> None:
    attention, student, original = build_attention(name, 2.0, [range(8)] * 2), maps(8, 1), maps(8, 0)
    both = attention(student, attention.of_teacher(original))
    second = attention([s[1:] for s in student], attention.of_teacher([t[1:] for t in original]))
    torch.testing.assert_close(both[1:], second)


@pytest.mark.parametrize("name", MAPPED)
def test_temperature_does_not_shrink_the_gradient(name: str) -> None:
    norms = []
    for temperature in (50.0, 500.0):
        student = [stage.requires_grad_() for stage in maps(8, 1)]
        attention = build_attention(name, temperature, [range(8)] * 2)
        attention(student, attention.of_teacher(maps(8, 0))).sum().backward()
        norms.append(float(torch.cat([stage.grad.flatten() for stage in student]).norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.2)


def test_each_channel_is_compared_with_the_one_it_came_from() -> None:
    kept, original = [1, 4, 6], maps(8, 0)
    student = [stage[:, kept] for stage in original]
    same, other = (build_attention("channels", 2.0, [channels] * 2) for channels in (kept, [kept[2], kept[0], kept[1]]))
    assert float(same(student, same.of_teacher(original)).abs().max()) < 1e-6
    assert float(other(student, other.of_teacher(original)).min()) > 0.1


def test_channels_ignore_an_offset_but_not_a_scale() -> None:
    attention, original = build_attention("channels", 2.0, [range(4)] * 2), maps(4, 0)
    of_teacher = attention.of_teacher(original)
    assert float(attention([stage + 5.0 for stage in original], of_teacher).abs().max()) < 1e-5
    assert float(attention([stage * 2.0 for stage in original], of_teacher).min()) > 0.1


def test_channel_term_is_the_mean_kl_divergence_over_channels_and_stages() -> None:
    temperature, student, original = 3.0, maps(4, 1, faces=1), maps(4, 3, faces=1)
    stages = []
    for ours, theirs in zip(student, original, strict=True):
        total = 0.0
        for p_map, q_map in zip(theirs[0].tolist(), ours[0].tolist(), strict=True):
            p, q = (softmax([v / temperature for row in each for v in row]) for each in (p_map, q_map))
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        stages.append(total / 4)
    attention = build_attention("channels", temperature, [range(4)] * 2)
    term = attention(student, attention.of_teacher(original))
    assert float(term) == pytest.approx(temperature**2 * sum(stages) / 2, rel=1e-4)


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def test_maps_need_neither_the_same_channels_nor_the_same_scale() -> None:
    attention, original = build_attention("maps", 1.0, []), maps(8, 0)
    shuffled = [3.0 * stage.flip(1) for stage in original]
    assert float(attention(shuffled, attention.of_teacher(original)).abs().max()) < 1e-5
    elsewhere = [stage.flip(2) for stage in original]
    assert float(attention(elsewhere, attention.of_teacher(original)).min()) > 0.1


def test_a_dead_map_is_no_division_by_zero() -> None:
    attention = build_attention("maps", 1.0, [])
    dead = [torch.zeros(1, 4, 3, 3, requires_grad=True)]
    attention(dead, attention.of_teacher([torch.rand(1, 8, 3, 3)])).sum().backward()
    assert bool(torch.isfinite(dead[0].grad).all())


def test_imitation_trusts_the_original_where_it_is_right() -> None:
    error = torch.tensor([0.2, 1.0, 5.0])
    weights = {t: build_attention("imitation", t, []).importance(error) for t in (0.1, 2.0, 1e6)}
    for each in weights.values():
        assert float(each.mean()) == pytest.approx(1.0)
        assert bool((each.diff() <= 0).all())
    assert float(weights[0.1][0]) == pytest.approx(3.0, rel=1e-2)
    assert float(weights[2.0][0] / weights[2.0][1]) == pytest.approx(math.exp(0.8 / 2.0))
    torch.testing.assert_close(weights[1e6], torch.ones(3), rtol=1e-5, atol=1e-5)


def test_unknown_attention_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=", ".join(ATTENTIONS)):
        build_attention("magic", 1.0, [])
