"""The catalogue's part about stopping rules, scales of output channels and losses."""

from __future__ import annotations

from refldnq.verify.kit.fault import Fault, fault

_STOP = ("stop",)

STOP_FAULTS: tuple[Fault, ...] = (
    fault(
        "stop-early-by-one",
        _STOP,
        "the iteration that ends the run is not counted",
        "one iteration too few",
        "The run ends after the iteration in which the rule is met.",
        stop_count="early",
    ),
    fault(
        "stop-late-by-one",
        _STOP,
        "one more iteration after the rule is met",
        "one iteration too many",
        "The run ends after the iteration in which the rule is met.",
        stop_count="late",
    ),
    fault(
        "stop-patience-off",
        _STOP,
        "the patience is one iteration longer",
        "> in place of >=: idle iterations at the end",
        "After `patience` iterations in a row without an improvement the run ends.",
        stop_patience="one more",
    ),
    fault(
        "stop-against-previous",
        _STOP,
        "an iteration is compared with the one before",
        "a rise and a fall count as an improvement: the run may never end",
        "Compare with the best so far.",
        stop_against="previous",
    ),
    fault(
        "stop-counts-in-total",
        _STOP,
        "iterations without an improvement are counted in total",
        "stops while the objective falls",
        "In a row: an improvement sets the count to 0.",
        stop_row="in total",
    ),
    fault(
        "stop-takes-equals",
        _STOP,
        "a change of exactly the tolerance is taken the other way",
        "<= in place of <, >= in place of >",
        "An improvement is more than the tolerance, a change that counts as none is less.",
        stop_equals="taken",
    ),
    fault(
        "stop-absolute",
        _STOP,
        "a relative tolerance is used as an absolute one",
        "small weights stop at once: not scale invariant",
        "Multiply it by the value that it is relative to. The code of 2019 has absolute ones throughout.",
        stop_unit="absolute",
    ),
    fault(
        "stop-relative",
        _STOP,
        "an absolute tolerance is used as a relative one",
        "stops earlier where objectives are large",
        "Whether it is relative is a setting.",
        stop_unit="relative",
    ),
    fault(
        "stop-wrong-quantity",
        _STOP,
        "the objective is watched in place of the scale, and the other way round",
        "ends at another time",
        "The rule says what must settle.",
        stop_watches="the other",
    ),
    fault(
        "stop-signed-change",
        _STOP,
        "changes are compared with their sign",
        "every rise ends the run",
        "The magnitude of the change counts.",
        stop_change="signed",
    ),
    fault(
        "stop-best-is-least",
        _STOP,
        "the best is replaced by every improvement, however small",
        "another point than the rule keeps",
        "With a patience the best is replaced under the condition that ends the row.",
        stop_best="least",
    ),
    fault(
        "stop-best-of-all",
        _STOP,
        "the best is looked for beyond the end of the run",
        "a point that was never reached",
        "Only the start and the iterations that were done count.",
        stop_best="of all",
    ),
    fault(
        "stop-best-rounded",
        _STOP,
        "when to stop is decided in double precision, which point is kept in single",
        "another point than the run ends with, where an objective is near the threshold",
        "One comparison decides on both: the best is replaced where the row of idle iterations ends.",
        stop_best="rounded",
    ),
)
"""Faults of the operation ``stop``."""

_CHANNELS = ("project_channels", "admm_channels", "solve_channels")

CHANNEL_FAULTS: tuple[Fault, ...] = (
    fault(
        "channels-share-a-scale",
        _CHANNELS,
        "all output channels share one scale",
        "small channels become 0, large ones are clipped",
        "One scale a channel was asked for: (17) for every column by itself.",
        channels="one scale",
    ),
    fault(
        "channels-are-rows",
        ("project_channels",),
        "every row has a scale, not every column",
        "a scale an input: no integer arithmetic is left in the layer",
        "A packed weight is (d, m): output channels are its columns.",
        channels="rows",
    ),
    fault(
        "channels-start-carried",
        ("project_channels",),
        "a channel's alternation starts at the scale of the channel before",
        "other fixed points, and the order of channels counts",
        "Every channel has a start of its own.",
        channels_start="of the last column",
    ),
    fault(
        "channels-best-each",
        ("admm_channels",),
        "every channel keeps the best of its own iterations",
        "a better G than any iteration has, undeclared",
        "The best iteration is that of the least f of all channels together.",
        channels_best="each its own",
    ),
)
"""Faults of the operations with one scale a channel."""

_LOSS = ("loss",)

LOSS_FAULTS: tuple[Fault, ...] = (
    fault(
        "loss-of-sum",
        _LOSS,
        "the loss is summed over images",
        "the learning rate depends on the batch",
        "A mean over images.",
        loss_of_batch="sum",
    ),
    fault(
        "loss-in-bits",
        _LOSS,
        "logarithms are of base 2",
        "too large by 1/log 2; the gradient is right",
        "Nats.",
        loss_logarithm="of base 2",
    ),
    fault(
        "loss-overflows",
        _LOSS,
        "exponentials are taken of the logits as they are",
        "NaN for logits above 700, or 88 in float32",
        "Subtract the largest logit of each image first.",
        loss_unshifted=True,
    ),
    fault(
        "distillation-without-temperature",
        _LOSS,
        "logits are not divided by the temperature",
        "the distillation of temperature 1",
        "softmax(t/T) and softmax(y/T).",
        loss_temperature="forgotten",
    ),
    fault(
        "distillation-not-squared",
        _LOSS,
        "the factor T² is missing",
        "gradients shrink as T grows",
        "Hinton et al. (2015), section 2: T² keeps their size.",
        loss_temperature="not squared",
    ),
    fault(
        "distillation-reversed",
        _LOSS,
        "the divergence of the teacher from the student",
        "another loss: KL is not symmetric",
        "KL(teacher ‖ student).",
        loss_divergence="reversed",
    ),
)
"""Faults of the operation ``loss``."""
