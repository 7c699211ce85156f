"""The catalogue of faults: what implementations get wrong, by name.

Each fault turns knobs of the reference. It is a known-bad implementation in the self-test, an explanation in
reports, and a row of the documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from refldnq._checks import check_choice
from refldnq.verify.kit.contract import OPERATIONS
from refldnq.verify.kit.fault import Fault, fault
from refldnq.verify.kit.faults_baselines import BASELINE_FAULTS
from refldnq.verify.kit.faults_layers import LAYER_FAULTS
from refldnq.verify.kit.faults_more import CHANNEL_FAULTS, LOSS_FAULTS, STOP_FAULTS
from refldnq.verify.kit.knobs import Knobs

_PATCHES = ("patches", "hessian")
_PROXIMAL = ("proximal", "admm")
_PROJECT = ("project", "admm")
_DUAL = ("dual", "admm")

CATALOGUE: tuple[Fault, ...] = (
    # All operations
    fault(
        "non-finite-accepted",
        tuple(OPERATIONS),
        "NaN and infinity are accepted",
        "one bad image or weight makes everything NaN, silently",
        "Refuse what is not finite where it enters.",
        guard="non-finite accepted",
    ),
    fault(
        "rho-unchecked",
        _PROXIMAL,
        "ρ ≤ 0 is accepted",
        "H + ρI need not be definite: Θ is no minimum",
        "ρ is positive; H[0, 0] of a dead input is not.",
        rho_guard="off",
    ),
    fault(
        "nothing-accepted",
        ("hessian", "project"),
        "no images and no weights are accepted",
        "0/0: NaN, silently",
        "A mean over nothing is no number: refuse it.",
        empty_guard="off",
    ),
    # Patches
    fault(
        "rows-kh-kw-c",
        _PATCHES,
        "rows of patches and H are in order (kh, kw, c)",
        "H is permuted against the weights: no better than ignoring H",
        "Weights are stored (c, kh, kw); patches come (kh, kw, c). The code of 2019 permutes neither.",
        row_order="kh,kw,c",
    ),
    fault(
        "padding-same",
        _PATCHES,
        "padding is TensorFlow's SAME",
        "patches are shifted by a pixel at stride 2",
        "SAME puts the odd zero bottom right; the layer pads both sides. So does the code of 2019.",
        padding="same",
    ),
    fault(
        "padding-none",
        _PATCHES,
        "padding is ignored",
        "the border is missing from H",
        "The zeros around the image belong to the layer's input.",
        padding="none",
    ),
    fault(
        "padding-swapped",
        _PATCHES,
        "paddings of rows and columns are swapped",
        "wrong size or a shift",
        "The order here is top, bottom, left, right; some frameworks give columns first.",
        padding="swapped",
    ),
    fault(
        "padding-one-sided",
        _PATCHES,
        "top and left paddings are used on both sides",
        "wrong for unequal sides only",
        "Padding has four sides.",
        padding="halved",
    ),
    fault(
        "padding-edge",
        _PATCHES,
        "padding repeats the border",
        "H is too large at the border",
        "Convolutions pad with 0.",
        pad_value="edge",
    ),
    fault(
        "kernel-flipped",
        _PATCHES,
        "patches are flipped (true convolution)",
        "rows of H are reversed within a channel",
        "Networks compute a cross-correlation.",
        taps="flipped",
    ),
    fault(
        "kernel-transposed",
        _PATCHES,
        "rows are in order (c, kw, kh)",
        "columns and rows of kernels are mixed up",
        "Axes of kernels are (rows, columns).",
        taps="transposed",
    ),
    fault(
        "stride-ignored",
        _PATCHES,
        "stride is ignored",
        "H sums positions that the layer never sees",
        "Only the layer's output positions count.",
        stride="ignored",
    ),
    fault(
        "stride-swapped",
        _PATCHES,
        "strides of rows and columns are swapped",
        "wrong for unequal strides only",
        "A stride is (rows, columns).",
        stride="swapped",
    ),
    fault(
        "dilation-ignored",
        _PATCHES,
        "dilation is ignored",
        "patches take neighbours in place of spread pixels",
        "Taps lie `dilation` pixels apart.",
        dilation="ignored",
    ),
    fault(
        "groups-interleaved",
        _PATCHES,
        "channel i goes to group i mod g",
        "groups see other groups' inputs",
        "Groups are blocks of neighbouring channels.",
        groups="interleaved",
    ),
    fault(
        "bias-first",
        _PATCHES,
        "the constant 1 comes first",
        "H is rotated by one row",
        "The bias row is last, or must be declared.",
        bias_slot="first",
    ),
    fault(
        "bias-missing",
        _PATCHES,
        "there is no constant 1",
        "H is one row too small",
        "A bias that is quantized needs its row in H.",
        bias_slot="none",
    ),
    fault(
        "positions-transposed",
        ("patches",),
        "positions run down columns",
        "harmless to H, wrong for layers",
        "Positions are row-major.",
        positions="columns",
    ),
    # Hessian
    fault(
        "h-without-2",
        ("hessian",),
        "H lacks the factor 2",
        "errors and absolute ρ are off by 2",
        "f = (1/n)‖X(G-W)‖² has the Hessian (2/n)XᵀX.",
        scale="1/n",
    ),
    fault(
        "h-sum",
        ("hessian",),
        "H lacks 1/n",
        "H grows with the number of images",
        "The layer error is a mean over images. With ρ ∝ H[0,0] end results cannot show it.",
        scale="2",
    ),
    fault("h-bare-sum", ("hessian",), "H lacks 2/n", "H is the bare sum", "H = (2/n)XᵀX.", scale="1"),
    fault(
        "h-positions",
        ("hessian",),
        "H is a mean over images and positions",
        "H is too small by P",
        "n counts images: each image's error is a sum over its positions.",
        scale="2/(n*p)",
    ),
    fault(
        "h-positions-without-2",
        ("hessian",),
        "H is a mean over images and positions, without the factor 2",
        "harmless to the minimizer, not to reported errors",
        "As in the code of 2019.",
        scale="1/(n*p)",
    ),
    fault(
        "h-101-100",
        ("hessian",),
        "101 batches are summed, divided by 100",
        "H is 1% too large",
        "The counter of the code of 2019 is one behind.",
        surplus=1.01,
    ),
    fault(
        "h-n-minus-1",
        ("hessian",),
        "division by n - 1",
        "H is a factor n/(n-1) too large",
        "H is a mean, no estimate of a variance.",
        scale="2/(n-1)",
    ),
    fault(
        "h-factor-4",
        ("hessian",),
        "the factor 2 is applied twice",
        "H is twice too large",
        "The 2 comes from the square, once.",
        scale="4/n",
    ),
    fault(
        "h-centred",
        ("hessian",),
        "H is a covariance",
        "the mean input does not count",
        "The layer error is not centred: use XᵀX.",
        centred=True,
    ),
    fault(
        "h-pooled",
        ("hessian",),
        "positions are summed before the outer product",
        "H has rank n at most",
        "Every position has its own outer product.",
        pooled=True,
    ),
    fault(
        "h-half",
        ("hessian",),
        "inputs are rounded to 16 bits",
        "H has 3 digits",
        "Accumulate what the layer really sees.",
        noise=True,
        precision="half",
    ),
    fault(
        "h-single",
        ("hessian",),
        "H is accumulated in float32 inside a float64 interface",
        "H has 7 digits",
        "Declare float32, or accumulate in float64.",
        noise=True,
        precision="single",
    ),
    fault(
        "h-upper",
        ("hessian",),
        "only the upper triangle is filled",
        "H is not symmetric",
        "BLAS's syrk writes one triangle: mirror it.",
        filled="upper",
    ),
    fault(
        "h-diagonal",
        ("hessian",),
        "only the diagonal is kept",
        "correlations are lost",
        "H is a full block.",
        filled="diagonal",
    ),
    fault(
        "h-groups-averaged",
        ("hessian",),
        "all groups share one block",
        "groups see a mean H",
        "Each group has its own inputs.",
        filled="groups averaged",
    ),
    fault(
        "h-damped",
        ("hessian",),
        "the diagonal is damped by 1% of its mean",
        "H is not the layer error's",
        "Damping is a solver's business and must be declared.",
        damping=0.01,
    ),
    fault(
        "h-last-dropped",
        ("hessian",),
        "the last, smaller batch is dropped",
        "some images do not count",
        "drop_last is for training.",
        batches="last dropped",
    ),
    fault(
        "h-means-averaged",
        ("hessian",),
        "means of batches are averaged over ragged batches",
        "images in small batches count more",
        "Weight by the batch's size, or sum and divide once.",
        batches="means averaged",
    ),
    # Packing
    fault(
        "pack-kh-kw-c",
        ("pack",),
        "weights are packed in order (kh, kw, c)",
        "W is permuted against H",
        "Rows are (c, kh, kw).",
        pack_order="kh,kw,c",
    ),
    fault(
        "pack-bias-first",
        ("pack",),
        "the bias row comes first",
        "W is rotated by one row",
        "The bias row is last.",
        pack_bias="first",
    ),
    fault(
        "pack-bias-missing",
        ("pack",),
        "the bias row is missing",
        "W is one row too short",
        "A packed bias is the last row.",
        pack_bias="none",
    ),
    fault(
        "pack-reshaped",
        ("pack",),
        "(m, d) is reshaped to (d, m)",
        "weights of units are mixed up",
        "Transpose, do not reshape.",
        pack_axes="reshaped",
    ),
    fault(
        "pack-flipped",
        ("pack",),
        "kernels are flipped",
        "kernels are rotated by 180°",
        "Networks compute a cross-correlation.",
        pack_taps="flipped",
    ),
    fault(
        "pack-transposed",
        ("pack",),
        "kernels are transposed",
        "rows and columns are mixed up",
        "Axes are (rows, columns).",
        pack_taps="transposed",
    ),
    fault(
        "pack-groups-interleaved",
        ("pack",),
        "unit i goes to group i mod g",
        "groups take others' weights",
        "Groups are blocks of neighbouring units.",
        pack_groups="interleaved",
    ),
    # Proximal step
    fault(
        "dual-sign",
        _PROXIMAL,
        "λ enters with the wrong sign",
        "ADMM diverges or stalls",
        "(13) has Θ - G + λ, so the right side is ρ(G - λ).",
        right="HW+rho(G+lam)",
    ),
    fault(
        "dual-unscaled",
        _PROXIMAL,
        "λ enters without ρ",
        "λ weighs wrongly unless ρ = 1",
        "λ is the scaled dual, y/ρ; with y the update must be y + ρ(Θ - G).",
        right="HW+rho*G-lam",
    ),
    fault(
        "rho-missing-right",
        _PROXIMAL,
        "G - λ enters without ρ",
        "Θ is pulled to the wrong point",
        "ρ stands on both sides of (15).",
        right="HW+(G-lam)",
    ),
    fault(
        "rho-is-1-left",
        _PROXIMAL,
        "the matrix is H + I",
        "Θ is pulled to the wrong point",
        "diag(ρ) in (15) is ρI.",
        left="H+1",
    ),
    fault(
        "rho-missing-left",
        _PROXIMAL,
        "the matrix is H",
        "a singular system where H is",
        "The matrix of (15) is H + ρI.",
        left="H",
    ),
    fault(
        "rho-everywhere",
        _PROXIMAL,
        "ρ is added to every entry of H",
        "a rank-one term in place of ρI",
        "H + rho broadcasts; H + rho * eye(d) is meant.",
        left="H+rho*ones",
    ),
    fault(
        "rho-stale",
        _PROXIMAL,
        "the factor belongs to another ρ (half of it)",
        "Θ is inconsistent after ρ changes",
        "Factorize again when ρ changes.",
        left="H+rho/2",
    ),
    fault(
        "rho-h00",
        _PROXIMAL,
        "ρ is multiplied by H[0, 0]",
        "a dead first input makes ρ 0",
        "The code of 2019 takes ρ = H[0,0]; the contract's ρ is absolute. A system that is singular then is "
        "solved by least squares.",
        rho_unit="h00",
    ),
    fault(
        "half-h",
        _PROXIMAL,
        "H is halved",
        "ρ counts twice",
        "H is the Hessian, its ½ belongs to the form.",
        left="H/2+rho",
    ),
    fault(
        "twice-h-left",
        _PROXIMAL,
        "the matrix is 2H + ρI",
        "Θ is not even W when G = W",
        "H contains the factor 2.",
        left="2H+rho",
    ),
    fault(
        "w-instead-of-hw",
        _PROXIMAL,
        "W̄ enters without H",
        "the curvature is lost",
        "The right side has H W̄.",
        right="W+rho(G-lam)",
    ),
    fault(
        "w-missing",
        _PROXIMAL,
        "H W̄ is missing",
        "Θ forgets the weights",
        "The right side has H W̄.",
        right="rho(G-lam)",
    ),
    fault(
        "g-is-w",
        _PROXIMAL,
        "W̄ stands in place of G",
        "Θ does not follow G",
        "(13) pulls Θ to G - λ.",
        right="HW+rho(W-lam)",
    ),
    fault(
        "dual-missing",
        _PROXIMAL,
        "λ is missing",
        "a penalty method, not ADMM",
        "(13) has Θ - G + λ.",
        right="HW+rho*G",
    ),
    fault(
        "g-minus",
        _PROXIMAL,
        "ρ(G - λ) is subtracted",
        "Θ flees from G",
        "(15) adds ρ(G - λ).",
        right="HW-rho(G-lam)",
    ),
    fault(
        "h-diagonal-solve",
        _PROXIMAL,
        "only the diagonal of H is in the matrix",
        "correlations are lost",
        "The matrix of (15) is full.",
        left="diag(H)+rho",
    ),
    fault(
        "jacobi",
        _PROXIMAL,
        "one Jacobi sweep from W̄ replaces the solve",
        "Θ is far off unless H is diagonal",
        "Solve the system.",
        solve="one sweep",
    ),
    fault(
        "solve-single",
        _PROXIMAL,
        "the system is solved in float32 inside a float64 interface",
        "7 digits",
        "Declare float32, or solve in float64.",
        noise=True,
        solve="single",
    ),
    fault(
        "solve-inverse",
        ("proximal",),
        "Θ comes from an explicit inverse",
        "digits lost where H + ρI is ill-conditioned",
        "The residual of inv(A) @ b is κ times larger than that of a solve.",
        noise=True,
        solve="inverse",
    ),
    fault(
        "solve-truncated",
        _PROXIMAL,
        "a truncated pseudo-inverse replaces the solve",
        "weak directions vanish",
        "H + ρI is definite: solve it.",
        solve="truncated",
    ),
    # Projection
    fault(
        "ties-larger",
        _PROJECT,
        "ties go to the larger magnitude",
        "codes differ on exact ties",
        "The declared rule is the smaller magnitude.",
        ties="larger",
    ),
    fault(
        "ties-zero",
        _PROJECT,
        "ties between non-zero levels become 0",
        "codes differ on exact ties",
        "Inequalities strict on both sides, as in the code of 2019.",
        ties="zero",
    ),
    fault(
        "ties-up",
        _PROJECT,
        "ties go up",
        "codes of negative values differ on ties",
        "Ties are symmetric about 0.",
        ties="up",
    ),
    fault(
        "ties-down",
        _PROJECT,
        "ties go down",
        "codes of positive and negative values differ on ties",
        "Ties are symmetric about 0: searchsorted is not.",
        ties="down",
    ),
    fault(
        "thresholds-geometric",
        _PROJECT,
        "thresholds are geometric means",
        "1.45α becomes 2α",
        "Rounding the logarithm is not rounding: 1.5α is halfway between α and 2α.",
        thresholds="geometric",
    ),
    fault(
        "thresholds-floor",
        _PROJECT,
        "values are truncated towards 0",
        "too many zeros",
        "The nearest level is meant.",
        thresholds="floor",
    ),
    fault(
        "levels-uniform",
        _PROJECT,
        "levels are 0, ±1, ±2, ±3, ...",
        "wrong from 7 levels on",
        "The set is {0, ±1, ±2, ±4, ...}.",
        levels="uniform",
    ),
    fault(
        "levels-short",
        _PROJECT,
        "the largest level is missing",
        "wrong from 5 levels on",
        "2b+3 levels end at ±2^b.",
        levels="short",
    ),
    fault(
        "levels-no-zero",
        _PROJECT,
        "0 is missing",
        "small values become ±α",
        "Ω contains 0.",
        levels="no zero",
    ),
    fault(
        "levels-one-sided",
        _PROJECT,
        "negative levels are missing",
        "negative values become 0",
        "Ω is symmetric.",
        levels="one-sided",
    ),
    fault(
        "alpha-never",
        _PROJECT,
        "α is never updated",
        "G = nearest at the first α",
        "(17) minimizes over α too.",
        scale_rule="never",
    ),
    fault(
        "alpha-mean",
        _PROJECT,
        "α = Σ|V| / Σ|Q|",
        "right for no set",
        "(17) gives VᵀQ/QᵀQ.",
        scale_rule="mean",
    ),
    fault(
        "alpha-mean-kept",
        _PROJECT,
        "α is the mean of |V| where Q is not 0",
        "right for three levels only",
        "(17) gives VᵀQ/QᵀQ.",
        scale_rule="mean of kept",
    ),
    fault(
        "alpha-inverted",
        _PROJECT,
        "α = VᵀV/VᵀQ",
        "α is too large",
        "The quotient is VᵀQ/QᵀQ.",
        scale_rule="over norm of V",
    ),
    fault(
        "alpha-start-mean",
        ("project",),
        "the given α₀ is ignored",
        "another fixed point from a warm start",
        "The alternation starts at α₀.",
        scale_start="mean",
    ),
    fault(
        "alpha-start-max",
        _PROJECT,
        "the alternation starts at max|V|",
        "another fixed point",
        "The alternation starts at α₀, by default mean|V|.",
        scale_start="max",
    ),
    fault(
        "alpha-start-one",
        _PROJECT,
        "the alternation starts at 1",
        "not scale invariant",
        "The alternation starts at α₀, by default mean|V|.",
        scale_start="one",
    ),
    fault(
        "empty-divides",
        _PROJECT,
        "QᵀQ = 0 is divided by",
        "NaN",
        "With Q = 0 start over at the mean of |V|.",
        empty="divide",
    ),
    fault(
        "empty-gives-up",
        _PROJECT,
        "an empty Q ends with G = 0",
        "a bad α₀ loses the layer",
        "With Q = 0 start over at the mean of |V|.",
        empty="stop",
    ),
    fault(
        "passes-1",
        _PROJECT,
        "one update of α only",
        "not a fixed point",
        "Alternate to the fixed point.",
        passes="one",
    ),
    fault(
        "passes-2",
        _PROJECT,
        "two updates of α only",
        "not a fixed point",
        "Alternate to the fixed point.",
        passes="two",
    ),
    fault(
        "passes-released",
        _PROJECT,
        "at most 10 passes, |Δα| < 1e-3, the best pass kept",
        "not scale invariant; an empty Q ends with G = 0",
        "As in the code of 2019; the tolerance is absolute.",
        passes="released",
    ),
    fault(
        "alpha-tolerance",
        _PROJECT,
        "the alternation stops when α moves by less than 1e-3",
        "not scale invariant",
        "A tolerance must be relative, or the test for a fixed point exact.",
        tolerance=1e-3,
    ),
    fault(
        "projection-alternates",
        ("project", "admm"),
        "the exact projection alternates",
        "a local optimum",
        "`exact` asks for the global optimum of (17).",
        method="alternating",
    ),
    fault(
        "projection-exact",
        ("project", "admm"),
        "the alternation is the exact projection",
        "another, better point",
        "`alternating` asks for the paper's iteration; declare the exact one.",
        method="exact",
    ),
    fault(
        "sign-lost",
        _PROJECT,
        "signs are lost",
        "all codes are non-negative",
        "Round V, not |V|.",
        sign="lost",
    ),
    fault(
        "rounded-again",
        ("project",),
        "codes are rounded once more after the last α",
        "Q and α do not belong together",
        "With limited passes the last step is the update of α.",
        final="rounded again",
    ),
    fault(
        "codes-are-values",
        _PROJECT,
        "codes are levels, not indices",
        "codes are off by a constant",
        "Codes index the ascending values, from 0.",
        codes="values",
    ),
    # Dual step
    fault(
        "dual-step-sign",
        _DUAL,
        "λ moves the wrong way",
        "ADMM does not converge",
        "(18): λ + Θ - G.",
        dual="lam-Theta+G",
    ),
    fault(
        "dual-twice",
        _DUAL,
        "Θ - G is added twice",
        "too long a step",
        "(18): λ + Θ - G.",
        dual="lam+2(Theta-G)",
    ),
    fault(
        "dual-relaxed",
        _DUAL,
        "the step is 1.6",
        "over-relaxation belongs to Θ, undeclared here",
        "(18): λ + Θ - G.",
        dual="lam+1.6(Theta-G)",
    ),
    fault("dual-not-summed", _DUAL, "λ is the last residual", "no memory", "(18) adds to λ.", dual="Theta-G"),
    fault(
        "dual-frozen",
        _DUAL,
        "λ never moves (G overwrites Θ in place)",
        "a penalty method",
        "An alias of G and Θ makes Θ - G vanish: copy.",
        dual="lam",
    ),
    fault(
        "dual-without-g", _DUAL, "G is missing", "λ grows without bound", "(18): λ + Θ - G.", dual="lam+Theta"
    ),
    fault(
        "dual-without-theta", _DUAL, "Θ is missing", "λ grows without bound", "(18): λ + Θ - G.", dual="lam-G"
    ),
    # ADMM
    fault(
        "admm-last",
        ("admm",),
        "the last G is returned",
        "a worse G wherever ADMM does not converge",
        "The contract asks for the best.",
        returned="last",
    ),
    fault(
        "admm-theta", ("admm",), "Θ is returned", "weights outside Ω", "Only G lies in Ω.", returned="Theta"
    ),
    fault(
        "admm-start",
        ("admm",),
        "the start is returned",
        "no gain at all",
        "The best of all is meant.",
        returned="start",
    ),
    fault(
        "admm-nearest",
        ("admm",),
        "the G nearest to W is returned",
        "H does not count",
        "Best means least f.",
        returned="nearest",
    ),
    fault(
        "alpha-restarted",
        ("admm",),
        "α starts at mean|V| in every iteration",
        "other fixed points",
        "The alternation is warm-started at the last α.",
        restart="mean of V",
    ),
    fault(
        "alpha-restarted-w",
        ("admm",),
        "α starts at mean|W| in every iteration",
        "other fixed points",
        "As in the code of 2019.",
        restart="mean of W",
    ),
    fault(
        "dual-old-g",
        ("admm",),
        "the dual step uses the previous G",
        "λ lags behind",
        "(18) has the new G.",
        dual_point="old",
    ),
    fault(
        "dual-forgotten",
        ("admm",),
        "Θ is computed with λ = 0",
        "a penalty method",
        "(15) has G - λ.",
        dual_kept=False,
    ),
    fault(
        "v-minus",
        ("admm",),
        "V = Θ - λ",
        "the projection is of the wrong point",
        "(16) projects Θ + λ.",
        shifted="Theta-lam",
    ),
    fault(
        "v-theta",
        ("admm",),
        "V = Θ",
        "the projection is of the wrong point",
        "(16) projects Θ + λ.",
        shifted="Theta",
    ),
    fault("start-w", ("admm",), "G⁰ = W̄", "another trajectory", "G⁰ is given.", start="W"),
    fault("start-dual-0", ("admm",), "λ⁰ = 0", "another trajectory", "λ⁰ is given.", start="zero dual"),
    fault(
        "iterations-short",
        ("admm",),
        "one iteration is missing",
        "K - 1 rows",
        "K iterations are meant.",
        count=-1,
    ),
    fault(
        "iterations-long",
        ("admm",),
        "one iteration too many",
        "K + 1 rows",
        "K iterations are meant.",
        count=1,
    ),
    fault(
        "stop-early",
        ("admm",),
        "the best G is replaced only if tr(δᵀHδ) falls by more than 1e-3; three iterations without that end",
        "not scale invariant: small weights, or a small H, come back directly quantized",
        "As in the code of 2019; the test is absolute.",
        stop="ascend3",
    ),
    fault(
        "trace-aliased",
        ("admm",),
        "all rows of G are the last one",
        "an in-place buffer is stored, not copied",
        "Copy what is kept, also the best G.",
        buffer="aliased",
    ),
    fault(
        "alpha-per-channel",
        ("admm",),
        "every column has its own α",
        "another problem, undeclared",
        "One α a layer.",
        scales="channel",
    ),
    fault(
        "f-without-half",
        ("admm",),
        "f lacks its ½",
        "errors are twice too large",
        "f = ½ tr(δᵀHδ).",
        objective="2f(G)",
    ),
    fault(
        "f-of-theta",
        ("admm",),
        "f is evaluated at Θ",
        "errors are too small",
        "f(G) counts, G is what is used.",
        objective="f(Theta)",
    ),
    fault(
        "f-norm",
        ("admm",),
        "best means least ‖G - W‖²",
        "H does not count",
        "f = ½ tr(δᵀHδ).",
        objective="norm",
    ),
    fault(
        "best-of-equals",
        ("admm",),
        "of equal objectives the last is kept",
        "the index of the best differs",
        "The first of equals is kept.",
        best_of_equals="last",
    ),
    fault(
        "proximal-from-theta",
        ("admm",),
        "Θ is pulled to the last Θ, not to G",
        "G does not feed back",
        "(15) has G - λ.",
        proximal_from="Theta",
    ),
    fault(
        "rho-grows",
        ("admm",),
        "ρ grows by 10% an iteration",
        "undeclared schedule, λ not rescaled",
        "ρ is constant; if it changes, λ must be scaled by ρ_old/ρ_new.",
        rho_growth=1.1,
    ),
    fault(
        "alpha-refit",
        ("admm",),
        "the returned α is refitted in the norm of H",
        "a better G, undeclared",
        "Declare `refit`.",
        refit=True,
    ),
    *STOP_FAULTS,
    *CHANNEL_FAULTS,
    *BASELINE_FAULTS,
    *LAYER_FAULTS,
    *LOSS_FAULTS,
)
"""All faults, in the order of the method."""

BY_ID: Mapping[str, Fault] = {one.id: one for one in CATALOGUE}
"""The catalogue by id."""


def find(id_: str) -> Fault:
    """The fault of that name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find("h-sum").changes
    {'scale': '2'}
    """
    check_choice("fault", id_, BY_ID)
    return BY_ID[id_]


def visible_in(op: str) -> tuple[Fault, ...]:
    """The faults that show in an operation, those that stand in it first.

    Examples
    --------
    >>> [fault.id for fault in visible_in("dual")][:2]
    ['dual-step-sign', 'dual-twice']
    """
    check_choice("op", op, OPERATIONS)
    shown = [one for one in CATALOGUE if op in one.ops]
    return tuple(sorted(shown, key=lambda one: one.stage != op))


def turn(ids: Iterable[str]) -> Knobs | None:
    """The knobs of several faults together; None if two of them turn the same knob to different settings.

    Examples
    --------
    >>> turn(["h-sum", "h-centred"]).turned()
    {'scale': '2', 'centred': True}
    >>> turn(["h-sum", "h-bare-sum"]) is None
    True
    """
    changes: dict[str, Any] = {}
    for id_ in ids:
        for knob, setting in find(id_).changes.items():
            if changes.setdefault(knob, setting) != setting:
                return None
    return Knobs().with_(changes)
