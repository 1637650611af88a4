"""The sizes worth considering: few enough to search, of multiples that matrix kernels like. Torch-free."""

LEVELS = 16  # of each kind of size: a curve is smooth, and the last gap is closed by another layer
KERNEL = 8  # matrix kernels like multiples of it


def ranks(inputs: int, outputs: int) -> list[int]:
    """Those at which two maps multiply no more than one does; parameters they save beyond that."""
    break_even = inputs * outputs // (inputs + outputs)
    return multiples(break_even, least=max(1, break_even // 12))


def multiples(most: int, least: int = 1) -> list[int]:
    """Up to ``LEVELS`` sizes in [least, most], ascending, of a multiple of 8 where there is room for that."""
    step = KERNEL
    while step > 1 and step * 8 > most:
        step //= 2
    step *= max(1, -(-most // (step * LEVELS)))
    return [size for size in range(step, most + 1, step) if size >= least]


def head_counts(heads: int) -> list[int]:
    """All of them, and fewer by quarters."""
    return sorted({heads, *(max(1, heads * quarters // 4) for quarters in (1, 2, 3))}, reverse=True)
