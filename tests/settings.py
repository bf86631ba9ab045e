"""Settings that make little work: a few small faces, a few steps on two cores."""

from leanface.config import Benchmark, Build, Data, Machine, Optimizer

DATA = Data(
    image_size=64,
    train_count=40,
    val_count=6,
    test_count=5,
    images_per_identity=2,
    supersample=1,
    yaw_max_rad=0.6,
    coefficient_clip=2.0,
    augment=1.0,
    photos=("astronaut",),
)

FEW = DATA.model_copy(update={"train_count": 8, "val_count": 4, "test_count": 4})

OPTIMIZER = Optimizer(
    algorithm="adamw",
    steps=4,
    batch_size=4,
    learning_rate=1e-3,
    warmup_fraction=0.25,
    weight_decay=0.01,
    ema_decay=0.9,
    gradient_clip=1.0,
)

MACHINE = Machine(accelerator="cpu", devices=1, precision="32-true", threads=2, compile=False)

BUILD = Build(
    batch_min=1,
    batch_opt=2,
    batch_max=4,
    workspace_mib=256,
    builder_level=0,
    hardware_compatible="none",
    version_compatible=False,
    weights="fixed",
    timing_cache=False,
)

BENCHMARK = Benchmark(
    batches=(1, 2),
    streams=(1, 2),
    warmup=1,
    window=2,
    windows_max=6,
    interval=1.0,
    threads=2,
    energy_seconds=0.01,
)
