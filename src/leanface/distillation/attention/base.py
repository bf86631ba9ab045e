"""What every form of attention may do beside comparing answers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

Maps = Sequence[Float[Tensor, "batch channels height width"]]
"""Feature maps after each of the four stages."""


class Attention(nn.Module):
    """A term that compares feature maps, or weights of faces; a subclass does either, this class neither.

    Args:
        temperature: T; larger is softer.
        channels: the original's channels that survive in the student, per stage.
    """

    reads_maps = False
    """Whether the networks' feature maps are needed: `of_teacher` and `forward` are called."""
    compact = True
    """Whether what `of_teacher` returns is small enough to be remembered for every image."""

    def __init__(self, temperature: float, channels: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.temperature = temperature
        self.channels = [list(stage) for stage in channels]

    def of_teacher(self, maps: Maps) -> list[Tensor]:
        """What of the original's maps the student's are compared with; the first dimension is the batch."""
        raise NotImplementedError

    def forward(self, maps: Maps, of_teacher: Sequence[Tensor]) -> Float[Tensor, " batch"]:
        """The term for each face, from the student's maps."""
        raise NotImplementedError

    def importance(self, teacher_error: Float[Tensor, " batch"]) -> Float[Tensor, " batch"] | None:
        """Weights of the faces, one on average, by how wrong the original is about each; None: all alike."""
        return None
