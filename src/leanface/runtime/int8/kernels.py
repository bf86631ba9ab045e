"""Triton kernels of the INT8 network, and of FP16's first layers.

A convolution is a matrix product: a row is a pixel of the result, and reads for each row of the kernel one run of
bytes, for the channels of neighboring pixels follow one another. Maps that are read beyond their edge have a border of
zeros in memory, so that nothing is masked; a run is read to the end of its last block, where the weights are 0.
Maps are (images, height, width, channels) with channels in multiples of 16. With TRITON_INTERPRET=1 the kernels also
run on the CPU.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false
# Triton comes with PyTorch for CUDA only, and a checker cannot follow its language inside a kernel.

import triton
import triton.language as tl

ROUND = tl.constexpr(12582912.0)
"""1.5 * 2^23: added to a float32, it rounds it to the nearest integer, ties to even, into the lowest bits."""

ROUND_BITS = tl.constexpr(0x4B400000)
"""The same as float32's bits; plus a small integer, those of the sum of both."""


@triton.jit
def _round(values, LOW: tl.constexpr):
    """float32 to int8, rounded to the nearest (ties to even) and clipped to [LOW, 127]."""
    clipped = tl.minimum(tl.maximum(values, LOW), 127.0)
    return (clipped + ROUND).to(tl.int32, bitcast=True).to(tl.int8)


@triton.jit
def _floats(levels):
    """int8 to float32, exactly; by additions, of which a multiprocessor does more at a time than of conversions."""
    return (levels.to(tl.int32) + ROUND_BITS).to(tl.float32, bitcast=True) - ROUND


@triton.jit
def _take_turns(CHAINED: tl.constexpr):
    """Let the next kernel begin, and wait for the one before: what it writes is read, and memory is shared with it.

    Where kernels are chained (programmatic dependent launch, Hopper and newer), one's blocks start while those of the
    kernel before still finish. `CHAINED` is 0 where they are not, else 1; or 2, which makes a kernel of its own, for
    launches whose L1 memory is split otherwise.
    """
    if CHAINED:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def _offsets(pixels, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, FULL_HEIGHT: tl.constexpr, FULL_WIDTH: tl.constexpr,
             DOWN: tl.constexpr, ACROSS: tl.constexpr, BORDER: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """Where the pixels of a map of HEIGHT x WIDTH begin in a map in memory, stepping DOWN and ACROSS it."""
    if DOWN == 1 and ACROSS == 1 and BORDER == 0 and HEIGHT == FULL_HEIGHT and WIDTH == FULL_WIDTH:
        return pixels * CHANNELS
    rows = pixels // WIDTH
    x = (pixels % WIDTH) * ACROSS + BORDER
    y = (rows % HEIGHT) * DOWN + BORDER
    return (((rows // HEIGHT) * FULL_HEIGHT + y) * FULL_WIDTH + x) * CHANNELS


@triton.jit
def _within(pixels, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, BORDER: tl.constexpr, CHANNELS: tl.constexpr):
    """Where the pixels of a map begin in memory that has a border around it."""
    return _offsets(pixels, HEIGHT, WIDTH, HEIGHT + 2 * BORDER, WIDTH + 2 * BORDER, 1, 1, BORDER, CHANNELS)


@triton.jit
def _columns(n, OUTPUTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """`n` where all blocks are whole, which the compiler must see to load many bytes at a time; else within OUTPUTS."""
    return n if OUTPUTS % BLOCK_N == 0 else tl.minimum(n, OUTPUTS - 1)


@triton.jit
def _parameters(parameters, columns, BLOCK_N: tl.constexpr):
    """sums, factors and bias of a block of outputs, (1, BLOCK_N) each, by one load."""
    packed = tl.load(parameters + columns[:, None] * 4 + tl.arange(0, 4)[None, :])
    even, odd = tl.split(tl.reshape(packed, (BLOCK_N, 2, 2)))
    sums, bias = tl.split(even)
    factors, _ = tl.split(odd)
    factors, bias = factors.to(tl.float32, bitcast=True), bias.to(tl.float32, bitcast=True)
    return sums[None, :], factors[None, :], bias[None, :]


@triton.jit
def _sums(starts, weights, sums, ROWS: tl.constexpr, BLOCKS: tl.constexpr, PITCH: tl.constexpr, BLOCK_K: tl.constexpr,
          ACCUMULATOR: tl.constexpr):  # fmt: skip
    """`sums` plus a block of the matrix product.

    Args:
        starts: (BLOCK_M, 1) pointers to each pixel's first byte.
        weights: (1, BLOCK_N) pointers to each output's weights.
    """
    k = tl.arange(0, BLOCK_K)
    starts, weights = starts + k[None, :], weights + k[:, None]
    for i in range(0, ROWS * BLOCKS):
        at = (i // BLOCKS) * PITCH + (i % BLOCKS) * BLOCK_K
        sums = tl.dot(tl.load(starts + at), tl.load(weights + i * BLOCK_K), sums, out_dtype=ACCUMULATOR)
    return sums


@triton.jit
def _finish(total, added, sums, factors, bias, residual_factor, target, m, n, PIXELS,
            HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr, OUT_BORDER: tl.constexpr,
            ADDS: tl.constexpr, LOW: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """Turn integer sums into levels, and write them."""
    values = (total + sums).to(tl.float32) * factors + bias
    if ADDS:
        values += _floats(added) * residual_factor
    written = _within(tl.minimum(m, PIXELS - 1), HEIGHT, WIDTH, OUT_BORDER, OUTPUTS)
    inside = (m < PIXELS)[:, None]
    stored = inside if OUTPUTS % BLOCK_N == 0 else inside & (n < OUTPUTS)[None, :]
    tl.store(target + written[:, None] + _columns(n, OUTPUTS, BLOCK_N)[None, :], _round(values, LOW), mask=stored)


@triton.jit(do_not_specialize=["PIXELS"])
def convolution(
    source, weights, parameters, residual, target, PIXELS, residual_factor,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr,
    IN_HEIGHT: tl.constexpr, IN_WIDTH: tl.constexpr, IN_BORDER: tl.constexpr, IN_CHANNELS: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr,
    OUT_BORDER: tl.constexpr, RESIDUAL_BORDER: tl.constexpr, LOW: tl.constexpr, CHAINED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, REPEATS: tl.constexpr,
):  # fmt: skip
    """A convolution with all that follows it, from int8 levels to int8 levels.

    Args:
        weights: (OUTPUTS, ROWS, BLOCKS * BLOCK_K), 0 beyond a run's own length.
        parameters: int32 (OUTPUTS, 4): what levels that stand for 0 add up to, subtracted; levels of the result per
            step of the integer sum, as float32's bits; the bias in such levels, its zero and the residual's included,
            likewise; and nothing.
        PIXELS: of all images together. A pixel here may be several neighbors of the map, one behind the other.
        DOWN, ACROSS: from one pixel's window to the next one's.
        IN_BORDER: from the start of the map in memory to the first pixel of the window at (0, 0).
        RESIDUAL_BORDER: of the map that is added; -1 if there is none.
        LOW: the lowest level that is written; with ReLU that of 0.
        REPEATS: blocks of pixels that a program computes, one after the other. With more than 1 it keeps the weights,
            of at most 4 blocks.
    """
    n = tl.program_id(0) % ((OUTPUTS + BLOCK_N - 1) // BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = _columns(n, OUTPUTS, BLOCK_N)
    first = tl.program_id(0) // ((OUTPUTS + BLOCK_N - 1) // BLOCK_N) * REPEATS * BLOCK_M + tl.arange(0, BLOCK_M)
    sums, factors, bias = _parameters(parameters, columns, BLOCK_N)
    weights += columns[None, :] * (ROWS * BLOCKS * BLOCK_K)
    ADDS: tl.constexpr = RESIDUAL_BORDER >= 0
    if REPEATS == 1:
        _take_turns(CHAINED)
        m = tl.minimum(first, PIXELS - 1)
        added = first
        if ADDS:  # on its way while the sums are computed
            added = tl.load(residual + _within(m, HEIGHT, WIDTH, RESIDUAL_BORDER, OUTPUTS)[:, None] + columns[None, :])
        read = _offsets(m, HEIGHT, WIDTH, IN_HEIGHT, IN_WIDTH, DOWN, ACROSS, IN_BORDER, IN_CHANNELS)
        total = _sums(
            source + read[:, None], weights, tl.zeros((BLOCK_M, BLOCK_N), tl.int32),
            ROWS, BLOCKS, IN_WIDTH * IN_CHANNELS, BLOCK_K, tl.int32,
        )  # fmt: skip
        _finish(total, added, sums, factors, bias, residual_factor, target, first, n, PIXELS,
                HEIGHT, WIDTH, OUTPUTS, OUT_BORDER, ADDS, LOW, BLOCK_N)  # fmt: skip
    else:
        k = tl.arange(0, BLOCK_K)
        weights += k[:, None]
        PITCH: tl.constexpr = IN_WIDTH * IN_CHANNELS
        first_block = tl.load(weights)
        second_block, third_block, fourth_block = first_block, first_block, first_block
        if ROWS * BLOCKS > 1:
            second_block = tl.load(weights + BLOCK_K)
        if ROWS * BLOCKS > 2:
            third_block = tl.load(weights + 2 * BLOCK_K)
        if ROWS * BLOCKS > 3:
            fourth_block = tl.load(weights + 3 * BLOCK_K)
        _take_turns(CHAINED)
        for repeat in tl.range(0, REPEATS, num_stages=2):  # the next pixels and residuals are loaded meanwhile
            own = first + repeat * BLOCK_M
            m = tl.minimum(own, PIXELS - 1)
            added = own
            if ADDS:
                at = _within(m, HEIGHT, WIDTH, RESIDUAL_BORDER, OUTPUTS)
                added = tl.load(residual + at[:, None] + columns[None, :])
            read = _offsets(m, HEIGHT, WIDTH, IN_HEIGHT, IN_WIDTH, DOWN, ACROSS, IN_BORDER, IN_CHANNELS)
            starts = source + read[:, None] + k[None, :]
            total = tl.dot(tl.load(starts), first_block, out_dtype=tl.int32)
            if ROWS * BLOCKS > 1:
                at_second: tl.constexpr = (1 // BLOCKS) * PITCH + (1 % BLOCKS) * BLOCK_K
                total = tl.dot(tl.load(starts + at_second), second_block, total, out_dtype=tl.int32)
            if ROWS * BLOCKS > 2:
                at_third: tl.constexpr = (2 // BLOCKS) * PITCH + (2 % BLOCKS) * BLOCK_K
                total = tl.dot(tl.load(starts + at_third), third_block, total, out_dtype=tl.int32)
            if ROWS * BLOCKS > 3:
                at_fourth: tl.constexpr = (3 // BLOCKS) * PITCH + (3 % BLOCKS) * BLOCK_K
                total = tl.dot(tl.load(starts + at_fourth), fourth_block, total, out_dtype=tl.int32)
            _finish(total, added, sums, factors, bias, residual_factor, target, own, n, PIXELS,
                    HEIGHT, WIDTH, OUTPUTS, OUT_BORDER, ADDS, LOW, BLOCK_N)  # fmt: skip


@triton.jit
def convolution_mean(
    source, weights, parameters, residual, features, residual_factor, scale,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr,
    IN_HEIGHT: tl.constexpr, IN_WIDTH: tl.constexpr, IN_BORDER: tl.constexpr, IN_CHANNELS: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr,
    RESIDUAL_BORDER: tl.constexpr, RELU: tl.constexpr, PITCH: tl.constexpr,
    ZERO: tl.constexpr, LOW: tl.constexpr, CHAINED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """As `convolution`, but to the mean over each image's pixels, as levels of the heads' input: int8 (images, PITCH).

    Args:
        scale, ZERO: of those levels.
    """
    image = tl.program_id(0) // ((OUTPUTS + BLOCK_N - 1) // BLOCK_N)
    n = tl.program_id(0) % ((OUTPUTS + BLOCK_N - 1) // BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = _columns(n, OUTPUTS, BLOCK_N)
    sums, factors, bias = _parameters(parameters, columns, BLOCK_N)
    _take_turns(CHAINED)
    mean = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, HEIGHT * WIDTH, BLOCK_M):
        own = start + tl.arange(0, BLOCK_M)
        m = image * (HEIGHT * WIDTH) + tl.minimum(own, HEIGHT * WIDTH - 1)
        if RESIDUAL_BORDER >= 0:
            added = tl.load(residual + _within(m, HEIGHT, WIDTH, RESIDUAL_BORDER, OUTPUTS)[:, None] + columns[None, :])
        read = _offsets(m, HEIGHT, WIDTH, IN_HEIGHT, IN_WIDTH, DOWN, ACROSS, IN_BORDER, IN_CHANNELS)
        total = _sums(
            source + read[:, None], weights + columns[None, :] * (ROWS * BLOCKS * BLOCK_K),
            tl.zeros((BLOCK_M, BLOCK_N), tl.int32), ROWS, BLOCKS, IN_WIDTH * IN_CHANNELS, BLOCK_K, tl.int32,
        )  # fmt: skip
        values = (total + sums).to(tl.float32) * factors + bias
        if RESIDUAL_BORDER >= 0:
            values += _floats(added) * residual_factor
        if RELU:
            values = tl.maximum(values, 0.0)
        mean += tl.sum(tl.where((own < HEIGHT * WIDTH)[:, None], values, 0.0), 0)
    levels = _round(tl.div_rn(mean / (HEIGHT * WIDTH), scale) + ZERO, LOW)
    tl.store(features + image * PITCH + columns, levels, mask=n < OUTPUTS)


@triton.jit(do_not_specialize=["IMAGES"])
def heads(
    features, weights, parameters, coefficients, IMAGES, COUNT: tl.constexpr, BLOCKS: tl.constexpr,
    CHAINED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Coefficients float32 (IMAGES, COUNT) of the mean features' levels, int8 (IMAGES, BLOCKS * BLOCK_K).

    Args:
        weights: int8 (COUNT rounded up to a block, BLOCKS * BLOCK_K); `parameters` as many rows.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    sums, factors, bias = _parameters(parameters, n, BLOCK_N)
    _take_turns(CHAINED)
    total = _sums(
        features + tl.minimum(m, IMAGES - 1)[:, None] * (BLOCKS * BLOCK_K), weights + n[None, :] * (BLOCKS * BLOCK_K),
        tl.zeros((BLOCK_M, BLOCK_N), tl.int32), 1, BLOCKS, 0, BLOCK_K, tl.int32,
    )  # fmt: skip
    result = (total + sums).to(tl.float32) * factors + bias
    tl.store(coefficients + m[:, None] * COUNT + n[None, :], result, mask=(m < IMAGES)[:, None] & (n < COUNT)[None, :])


@triton.jit
def _squares(m, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Image, row and column of the pixels of a folded image with its border, and whether they are within it."""
    rows = m // (WIDTH + 3)
    y, x = rows % (HEIGHT + 3) - 2, m % (WIDTH + 3) - 2
    inside = (y >= 0) & (y < HEIGHT) & (x >= 0) & (x < WIDTH)
    y, x = tl.minimum(tl.maximum(y, 0), HEIGHT - 1), tl.minimum(tl.maximum(x, 0), WIDTH - 1)
    return rows // (HEIGHT + 3), y * 2, x * 2, inside


@triton.jit
def _store_squares(target, m, c, folded, PIXELS):
    """Write squares; and one of zeros behind the last, as runs are read beyond their end and NaN times 0 is not 0."""
    folded = tl.where((m < PIXELS)[:, None], folded.to(target.dtype.element_ty), 0)
    tl.store(target + m[:, None] * 16 + c[None, :], folded, mask=(m <= PIXELS)[:, None])


@triton.jit(do_not_specialize=["PIXELS"])
def fold_bytes(pixels, table, target, PIXELS, ZERO: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
               CHAINED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """uint8 (images, 2*HEIGHT, 2*WIDTH, 3) to (images, HEIGHT+3, WIDTH+3, 16): squares of 2x2 pixels become channels.

    Args:
        table: what each of 256 values becomes, int8 or float16, as the target.
        target: with a border of ZERO, 2 before and 1 behind, and room for one more square; channels 12 to 15 have no
            meaning.
        PIXELS: of the target, all images together.
    """
    _take_turns(CHAINED)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, 16)
    image, y, x, inside = _squares(tl.minimum(m, PIXELS - 1), HEIGHT, WIDTH)
    own = tl.minimum(c, 11)
    corner = ((image * (2 * HEIGHT) + y) * (2 * WIDTH) + x) * 3
    value = tl.load(pixels + corner[:, None] + ((own // 6) * (2 * WIDTH * 3) + own % 6)[None, :])
    folded = tl.where(inside[:, None], tl.load(table + value.to(tl.int32)), ZERO)
    _store_squares(target, m, c, folded, PIXELS)


@triton.jit(do_not_specialize=["PIXELS"])
def fold_floats(pixels, target, PIXELS, scale, ZERO: tl.constexpr, LOW: tl.constexpr, QUANTIZED: tl.constexpr,
                HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHAINED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """As `fold_bytes`, from float32 (images, 3, 2*HEIGHT, 2*WIDTH) in [0, 1]."""
    _take_turns(CHAINED)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, 16)
    image, y, x, inside = _squares(tl.minimum(m, PIXELS - 1), HEIGHT, WIDTH)
    own = tl.minimum(c, 11)
    corner = (image * (3 * 2 * HEIGHT) + y) * (2 * WIDTH) + x
    plane = (own % 3) * (2 * HEIGHT) + own // 6
    value = tl.load(pixels + corner[:, None] + (plane * (2 * WIDTH) + own // 3 % 2)[None, :])
    folded = _round(tl.div_rn(value, scale) + ZERO, LOW) if QUANTIZED else value
    folded = tl.where(inside[:, None], folded, ZERO)
    _store_squares(target, m, c, folded, PIXELS)


@triton.jit
def max_pool(source, target, COUNT, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, BORDER: tl.constexpr,
             IN_HEIGHT: tl.constexpr, IN_WIDTH: tl.constexpr, IN_BORDER: tl.constexpr, CHANNELS: tl.constexpr,
             CHAINED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """The largest value in each 3x3 window at stride 2, one pixel beyond the edge; maps of any type.

    Args:
        COUNT: values of the target, all images and channels together.
    """
    _take_turns(CHAINED)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < COUNT
    c, m = at % CHANNELS, at // CHANNELS
    rows = m // WIDTH
    y, x = rows % HEIGHT * 2, m % WIDTH * 2
    first = rows // HEIGHT * (IN_HEIGHT + 2 * IN_BORDER) + IN_BORDER
    largest = tl.load(source + ((first + y) * (IN_WIDTH + 2 * IN_BORDER) + x + IN_BORDER) * CHANNELS + c, mask=inside)
    for i in tl.static_range(9):
        if i != 4:
            # Beyond the edge a pixel of the same window stands in.
            near_y = first + tl.minimum(tl.maximum(y + (i // 3 - 1), 0), IN_HEIGHT - 1)
            near_x = tl.minimum(tl.maximum(x + (i % 3 - 1), 0), IN_WIDTH - 1) + IN_BORDER
            near = (near_y * (IN_WIDTH + 2 * IN_BORDER) + near_x) * CHANNELS + c
            largest = tl.maximum(largest, tl.load(source + near, mask=inside))
    tl.store(target + _within(m, HEIGHT, WIDTH, BORDER, CHANNELS) + c, largest, mask=inside)


@triton.jit(do_not_specialize=["PIXELS"])
def half_convolution(
    source, weights, bias, target, PIXELS,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr,
    IN_HEIGHT: tl.constexpr, IN_WIDTH: tl.constexpr, IN_CHANNELS: tl.constexpr,
    TOGETHER: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The first layer in float16 with bias and ReLU, at stride 1 over the folded image; sums are float32."""
    m = tl.program_id(0) // ((OUTPUTS + BLOCK_N - 1) // BLOCK_N) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) % ((OUTPUTS + BLOCK_N - 1) // BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    stored = (m < PIXELS)[:, None] & (n < OUTPUTS)[None, :]
    m, columns = tl.minimum(m, PIXELS - 1), _columns(n, OUTPUTS, BLOCK_N)
    read = _offsets(m, HEIGHT, WIDTH, IN_HEIGHT, IN_WIDTH, 1, TOGETHER, 0, IN_CHANNELS)
    total = _sums(
        source + read[:, None], weights + columns[None, :] * (ROWS * BLOCKS * BLOCK_K),
        tl.zeros((BLOCK_M, BLOCK_N), tl.float32), ROWS, BLOCKS, IN_WIDTH * IN_CHANNELS, BLOCK_K, tl.float32,
    )  # fmt: skip
    values = tl.maximum(total + tl.load(bias + columns % (OUTPUTS // TOGETHER))[None, :], 0.0)
    tl.store(target + m[:, None] * OUTPUTS + columns[None, :], values.to(tl.float16), mask=stored)
