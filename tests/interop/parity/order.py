"""The order in which `sapwood model train` takes the examples, as models/src/train/order.rs draws it, so that PyTorch can take them
in the same and nothing but arithmetic and dropout differs."""

import numpy as np

WORD = 2**32 - 1


def key(seed):
    """The 256 bits that rand_core 0.10 makes of 64, from a PCG32 generator."""
    words = []
    for _ in range(8):
        seed = (seed * 0x5851F42D4C957F2D + 0xA17654E46FBE17F3) % 2**64
        mixed, turn = (((seed >> 18) ^ seed) >> 27) & WORD, seed >> 59
        words.append((mixed >> turn | mixed << (32 - turn)) & WORD)
    return words


def chacha8(key, stream, blocks):
    """The first blocks of 16 words of ChaCha with 8 rounds, a 64-bit counter and a 64-bit stream (Bernstein 2008)."""
    constants = np.frombuffer(b"expand 32-byte k", "<u4").tolist()
    start = np.array([*constants, *key, 0, 0, stream & WORD, stream >> 32], np.uint32)[:, None].repeat(blocks, 1)
    start[12] = np.arange(blocks)
    state = start.copy()

    def quarter(a, b, c, d):
        for into, other, turned, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[into] += state[other]
            mixed = state[turned] ^ state[into]
            state[turned] = mixed << np.uint32(turn) | mixed >> np.uint32(32 - turn)

    for _ in range(4):
        for column in range(4):
            quarter(*(4 * row + column for row in range(4)))
        for column in range(4):
            quarter(*(4 * row + (column + row) % 4 for row in range(4)))
    return (state + start).T.reshape(-1)


def shuffled(count, seed, epoch):
    """Fisher and Yates. A draw that Lemire's method would repeat comes once in 2^50 and more, and is not looked for."""
    draws = chacha8(key(seed), 2 * epoch, count // 8 + 1).astype("<u4").view("<u8").tolist()
    order = list(range(count))
    for i, draw in zip(range(count - 1, 0, -1), draws):
        other = draw * (i + 1) >> 64
        order[i], order[other] = order[other], order[i]
    return np.array(order)
