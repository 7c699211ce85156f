"""What can be turned in the reference: each setting beside the first is a fault or a legitimate variant."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Knobs:
    """One setting for every place where an implementation can go its own way; the defaults are right.

    The fields are grouped by the operation that reads them: all (guards), patches, Hessian, packing,
    proximal step, projection, dual step, ADMM, stopping rules; layers forward and backward, updates and whole
    networks, quantizers and solvers, baselines; no verdict may depend on `solver`, `backwards` and `threads`.

    Examples
    --------
    >>> Knobs().turned()
    {}
    >>> Knobs(scale="1").turned()
    {'scale': '1'}
    """

    guard: str = "on"
    rho_guard: str = "on"
    empty_guard: str = "on"

    row_order: str = "c,kh,kw"
    bias_slot: str = "last"
    padding: str = "explicit"
    pad_value: str = "zero"
    taps: str = "forward"
    stride: str = "given"
    dilation: str = "given"
    groups: str = "blocks"
    positions: str = "rows"

    scale: str = "2/n"
    surplus: float = 1.0
    centred: bool = False
    pooled: bool = False
    precision: str = "double"
    filled: str = "full"
    batches: str = "all"
    damping: float = 0.0

    pack_order: str = "c,kh,kw"
    pack_bias: str = "last"
    pack_axes: str = "transposed"
    pack_taps: str = "forward"
    pack_groups: str = "blocks"

    left: str = "H+rho"
    right: str = "HW+rho(G-lam)"
    solve: str = "full"

    ties: str = "given"
    thresholds: str = "midpoint"
    levels: str = "given"
    scale_rule: str = "least squares"
    scale_start: str = "given"
    empty: str = "restart"
    passes: str = "given"
    tolerance: float = 0.0
    method: str = "given"
    sign: str = "kept"
    final: str = "codes of the last update"
    codes: str = "indices"

    dual: str = "lam+Theta-G"

    returned: str = "given"
    restart: str = "warm"
    dual_point: str = "new"
    dual_kept: bool = True
    shifted: str = "Theta+lam"
    start: str = "given"
    count: int = 0
    stop: str = "none"
    buffer: str = "copied"
    scales: str = "layer"
    objective: str = "f(G)"
    best_of_equals: str = "first"
    proximal_from: str = "G"
    rho_growth: float = 1.0
    rho_unit: str = "absolute"
    refit: bool = False

    channels: str = "columns"
    channels_start: str = "own"
    channels_best: str = "of all"

    stop_count: str = "given"
    stop_patience: str = "given"
    stop_against: str = "best"
    stop_row: str = "ends with a gain"
    stop_equals: str = "not taken"
    stop_unit: str = "given"
    stop_watches: str = "given"
    stop_change: str = "magnitude"
    stop_best: str = "given"

    relu_at_zero: float = 0.0
    relu_kept: str = "input"
    layer_bias: str = "given"
    layer_stride: str = "given"
    layer_kernel: str = "forward"
    layer_groups: str = "blocks"
    layer_dilation: str = "given"
    input_kernel: str = "forward"
    input_stride: str = "given"
    weight_grad: str = "sum"
    bias_grad: str = "sum"
    bn_mode: str = "given"
    bn_eps: str = "inside"
    bn_variance: str = "biased"
    bn_running: str = "unbiased"
    bn_momentum: str = "of the batch"
    bn_backward: str = "full"
    bn_scale_grad: str = "normalized"
    max_ties: str = "first"
    max_padding: str = "never"
    pool_count: str = "given"
    pool_ceil: str = "given"
    average_grad: str = "divided"
    global_pool: str = "mean"
    flatten: str = "c,h,w"
    add_grad: str = "both"
    relu_slope: float = 0.0
    add_scale: float = 1.0
    concat: str = "given"
    dropout: str = "given"
    dropout_grad: str = "masked"
    pool_stride: str = "given"
    zero_pad: str = "given"
    shortcut_channels: str = "both sides"
    shortcut_pixels: str = "first"

    loss_of_batch: str = "mean"
    loss_logarithm: str = "natural"
    loss_unshifted: bool = False
    loss_temperature: str = "given"
    loss_divergence: str = "of the teacher"

    teacher: str = "eval"
    teacher_arrays: str = "original"
    student: str = "given"
    loss: str = "mean over images"
    loss_batches: str = "summed"
    frozen: str = "given"
    affine: str = "moves"
    rate: str = "given"
    hessian_from: str = "quantized prefix"
    hessian_when: str = "now"
    quantized_weight: str = "updated"
    network_solver: str = "given"

    quantizer_scale: str = "given"
    solve_method: str = "given"
    push: str = "given"
    solve_damping: float = 0.0
    solve_order: str = "forward"
    solve_scale: str = "fitted"
    solve_objective: str = "half"
    sweep: str = "in place"
    sweeps: int = 100

    affine_range: str = "holds 0"
    affine_steps: str = "levels - 1"
    affine_clip: str = "on"
    affine_rounding: str = "half to even"
    affine_zero: str = "a code"
    affine_empty: str = "given"
    vq_start: str = "optimum"
    vq_value: str = "mean"
    vq_zero: str = "free"
    exnn_dual: str = "added"
    exnn_scale: str = "alternated"
    ttq_size: str = "max"
    ttq_equals: str = "zero"
    ttq_sign: str = "minus"
    ttq_latent: str = "scaled"
    ttq_sums: str = "sums"
    ttq_minus: str = "kept"
    inq_greatest: str = "of 4s/3"
    inq_least: str = "given"
    inq_ties: str = "up"
    inq_nearest: str = "on the line"
    inq_zero: str = "below half"
    inq_order: str = "largest first"
    inq_portion: str = "of all"
    inq_frozen: str = "stay"
    lat_guard: str = "on"
    lat_weights: str = "curvature"
    lat_signs: str = "kept"
    lata_threshold: float = 0.5
    lata_start: str = "0.7 of the mean"
    lata_passes: str = "given"
    lata_empty: str = "zero"
    late_order: str = "magnitude"
    late_chosen: str = "best"
    late_scale: float = 2.0
    lat_scales: str = "own"
    trn_axis: str = "input channels"
    trn_last: str = "shorter"
    trn_scale: str = "of the chosen"
    trn_threshold: str = "best"
    trn_limit: str = "relative"
    trn_empty: str = "no term"
    trn_terms: str = "of the residual"
    distil_rounding: str = "half to even"
    distil_steps: str = "levels - 1"
    distil_padding: str = "edge"
    distil_range: str = "min to max"
    distil_empty: str = "by one"
    distil_buckets: str = "given"

    solver: str = "cholesky"
    backwards: bool = False
    threads: int = 1

    def turned(self) -> dict[str, Any]:
        """The knobs that are not at their default."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != one.default
        }

    def with_(self, changes: dict[str, Any]) -> Knobs:
        """A copy with some knobs turned."""
        return replace(self, **changes)
