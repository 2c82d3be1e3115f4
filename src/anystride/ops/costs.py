"""What the choices between exact orders are made by: one table of numbers, each with the record that fitted it."""

from typing import NamedTuple

import torch


class Costs(NamedTuple):
    """Numbers of the cost model, in units of a convolution's multiply-accumulates where nothing else is said.

    Attributes:
        traffic: of a number that is written and read again. Fitted to steps on a CPU (results/performance/unit-cpu.json
            by `anystride bench unit`); a data sheet's bandwidth and rate give 70 to 250 for a GPU.
        again: factor of the products that the backward pass repeats: an interleaved map is made three times a step
            instead of twice (the same record).
        matrix: traffic of an entry of a matrix. It is made once per step, with its stride, in about four passes over
            twice as wide numbers, and shared by the samples of a batch, here 16; a guess, no record.
        tap: of a multiply-accumulate of a filter without a convolution beside it: it runs as a depthwise convolution,
            at a fraction of the speed of a product (contiguous maps of 56 to 224 samples on a CPU; tried by hand, no
            record).
        light: entries of a matrix that count for nothing: a quarter of a megabyte in float32.
        fourier_cpu: output length from which a transform beats a dense matrix on a CPU
            (results/performance/crossover-cpu.json, `anystride bench crossover`).
        fourier: the same on other devices, where products are faster beside transforms; a guess, no record.
        tiny: neighbouring axes with no more samples than this are one axis, with the Kronecker product of their
            matrices: a few more multiplications, but in few large products (results/performance/operator-cpu.json).
        short: length up to which a sum over all outer products beats projections onto the ramp (the same record).
        channels_last: channels from which channels last is the faster layout of a convolution on an interleaved map
            (results/performance/unit-cpu.json).
        interleaved: largest number of entries of an interleaved matrix: 16 MiB in float32. A limit of memory, not of
            time; a kernel as long as its axis would take hundreds of times that.
    """

    traffic: int = 128
    again: float = 1.5
    matrix: float = 0.25
    tap: int = 24
    light: int = 2**16
    fourier_cpu: int = 256
    fourier: int = 1024
    tiny: int = 64
    short: int = 16
    channels_last: int = 16
    interleaved: int = 2**22


COSTS = Costs()


def is_long(output_length: int, device: torch.device) -> bool:
    """Whether an axis is so long that transforms beat a matrix.

    A matrix costs h multiplications per sample of the input, a transform about the logarithm of its length, but slower
    ones. (Two dense factors, through the kept bins, would cost h more than the matrix: all h bins are kept.)
    """
    return output_length > (COSTS.fourier_cpu if device.type == "cpu" else COSTS.fourier)
