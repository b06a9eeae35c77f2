"""Every setting and every default.

The way of a value is always preset YAML -> `--set train.learning_rate=0.05` -> `PipelineConfig`
-> builders that hand flat arguments to nets and losses.  The defaults of `RunConfig` are the
paper's MNIST run (Goodfellow et al., 2014, with the hyper-parameters of its released code).
"""

import copy
import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gan.errors import ConfigError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
SPACE = "sweep.space."
BUILT_IN = ("mnist", "stacked_mnist")
"""Data sets that need no file."""
PUBLISHED = ("mnist", "fashion_mnist", "cifar10")
"""Data sets that are read from the folder `data.root`, in the files that are published."""
NAMED = tuple(dict.fromkeys((*BUILT_IN, *PUBLISHED)))
"""Data sets that `data.dataset` calls by a name; whatever else it says is a path."""
FOLDED_SUFFIX = ".mat"
"""Of a file that decides itself which images validate and which test."""
IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""Of a function of the user's: `package.module:function`."""

Units = Annotated[int, Field(ge=1)]
"""Units of one layer."""
Activation = Literal["relu", "sigmoid"]
"""Of a hidden layer of G."""

Task = Literal[
    "generator",
    "conditional",
    "inference",
    "shared_conditional",
    "learned_prior",
    "semi_supervised",
    "vae",
    "stacked_cae",
    "gsn",
    "dbn",
    "dbm",
]
"""What a run trains: the paper's GAN, one of its extensions, or a rival of Table 1."""

SECTIONS: tuple[Task, ...] = tuple(task for task in get_args(Task) if task != "generator")
"""Tasks that have a section of that name in `RunConfig`, which is given to ask for them."""

BASELINES: tuple[Task, ...] = ("vae", "stacked_cae", "gsn", "dbn", "dbm")
"""Those that stand against the GAN; the others are its extensions."""

Objective = Literal[
    "frechet_distance_valid",
    "parzen_ll_valid",
    "nearest_accuracy_valid",
    "reconstruction_error_valid",
    "completion_ll_valid",
    "few_labels_nats",
]
"""Scores by which runs are compared; `gan.objectives` says which way is better."""

PriorKind = Literal["uniform", "gaussian", "spherical", "bernoulli", "truncated_normal", "mixture"]
"""Distributions of z; `gan.priors` states the support, mean and variance of each."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """The images, and which of them are held out."""

    dataset: str = "mnist"
    """`mnist` (inside the package), `stacked_mnist` (made of it: a digit a colour channel),
    `fashion_mnist` or `cifar10` (in `root`), or the path of a .parquet or .npz file of training
    images, of a folder of PNG or JPEG pictures, whose sub-folders, if any, are the classes, or of
    a .mat file of the Toronto Face Database, TFD_48x48.mat or TFD_96x96.mat."""
    test_path: str | None = None
    """For a `dataset` given by path: the file or folder with the test images."""
    root: str | None = None
    """Folder with the files of `fashion_mnist`, `cifar10` or `mnist` as they are published:
    torchvision's download, or {train,test}.parquet."""
    download: bool = False
    """Whether files that `root` lacks are downloaded into it; without, nothing ever is."""
    n_valid: int = Field(default=10_000, ge=1)
    """Images at the end of the training file that are held out for validation."""
    fold: int = Field(default=0, ge=0, le=4)
    """Of a .mat file: which of its five folds, from 0 as in the released code, says what validates
    and what tests; the images without a label train."""

    @property
    def is_folded(self) -> bool:
        """Whether the file decides itself which images validate and which test."""
        return self.dataset.endswith(FOLDED_SUFFIX)

    def __post_init__(self) -> None:
        self._require_what_has_a_part_in_folds()
        if self.root is not None and self.dataset not in PUBLISHED:
            raise ValueError(
                f"data.root belongs to {', '.join(PUBLISHED)}: leave it out, got {self.root} "
                f"beside data.dataset {self.dataset}"
            )
        if self.download and self.root is None:
            raise ValueError("data.root must name the folder that data.download fills, got none")

    def _require_what_has_a_part_in_folds(self) -> None:
        if not self.is_folded and self.fold:
            raise ValueError(
                f"data.fold belongs to a .mat file with folds: leave it out with {self.dataset}, "
                f"got {self.fold}"
            )
        if self.is_folded and self.test_path is not None:
            raise ValueError(
                f"data.test_path has no part in {self.dataset}, whose folds say what tests: "
                f"leave it out, got {self.test_path}"
            )
        usual = type(self).n_valid
        if self.is_folded and self.n_valid != usual:
            raise ValueError(
                f"data.n_valid has no part in {self.dataset}, whose folds say what validates: "
                f"leave it at {usual}, got {self.n_valid}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PriorConfig:
    """The distribution p(z) of the noise at the bottom of G."""

    kind: PriorKind = "uniform"
    """Which distribution; all but `spherical` at radius `unit` have variance 1 a coordinate."""
    dim: int = Field(default=100, ge=1)
    """Coordinates of z."""
    spherical_radius: Literal["unit", "sqrt_dim"] = "unit"
    """Norm of a spherical z: 1 as in the released code, or the square root of `dim`."""
    truncation: float = Field(default=2.0, ge=0.01)
    """Standard deviations at which `truncated_normal` is cut, before it is rescaled."""
    n_components: int = Field(default=10, ge=2)
    """Gaussians in `mixture`, of equal weight."""
    component_std: float = Field(default=0.5, gt=0, lt=1)
    """Standard deviation of one Gaussian of `mixture`, a coordinate."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GeneratorConfig:
    """G: hidden layers of ReLU or sigmoid units, then pixels; noise at the bottom only."""

    hidden: tuple[Units, ...] = (1200, 1200)
    """Units of each hidden layer."""
    activations: tuple[Activation, ...] = ()
    """Of each hidden layer, `relu` or `sigmoid`; empty: ReLU in all."""
    sigmoid_bias: float = 0.0
    """Initial bias of sigmoid hidden layers; the released TFD net has -2, those of CIFAR-10 0."""
    deconv_channels: int | None = Field(default=None, ge=1)
    """Given: the last hidden layer is read as this many square feature maps, of which a transposed
    convolution makes the image; null: all of its units lead to every pixel."""
    deconv_kernel: int = Field(default=5, ge=1)
    """Height and width of that convolution's kernel."""
    deconv_stride: int = Field(default=3, ge=1)
    """Pixels from one position of the kernel to the next."""
    output: Literal["sigmoid", "linear"] = "sigmoid"
    """Units of the pixels: sigmoid, in (0, 1), or linear, as D sees images by
    `train.contrast_norm`."""
    batch_norm: bool = False
    """Batch normalisation before each activation; not in the paper."""
    dropout_hidden: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden units that is dropped; the paper's G has none."""
    init_range: float | None = Field(default=0.05, gt=0)
    """Weights start uniform on +-this; null: on +-1/sqrt(inputs of the layer)."""
    output_init_range: float | None = Field(default=None, gt=0)
    """The same of the weights that lead to the pixels; null: as `init_range` says."""
    output_bias_from_data: bool = True
    """Start the output bias at the logit of each pixel's mean over the training images."""
    output_sparse_init: int | None = Field(default=None, ge=1)
    """Incoming weights of each pixel that start at other than 0, standard normal; null: all start
    by `output_init_range`."""
    max_column_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the incoming weights of any unit, to which an update that exceeds it is
    scaled back; null: no limit."""

    def __post_init__(self) -> None:
        if self.activations and len(self.activations) != len(self.hidden):
            raise ValueError(
                f"generator.activations must be empty or one for each of {len(self.hidden)} "
                f"hidden layers, got {len(self.activations)}"
            )
        if self.output == "linear" and self.output_bias_from_data:
            raise ValueError(
                "generator.output_bias_from_data must be false with generator.output linear, "
                "whose pixels are no sigmoid of a logit, got true"
            )
        if self.deconv_channels is not None and not self._fills_square_maps(self.deconv_channels):
            raise ValueError(
                f"generator.deconv_channels must divide the last of generator.hidden into square "
                f"maps, got {self.deconv_channels} for {list(self.hidden)}"
            )
        if self.output_sparse_init is not None:
            self._require_sparse_weights(self.output_sparse_init)

    def _require_sparse_weights(self, n_inputs: int) -> None:
        for name in ("deconv_channels", "output_init_range"):
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"generator.output_sparse_init must be null with generator.{name} {value}, "
                    f"got {n_inputs}"
                )
        if self.hidden and n_inputs > self.hidden[-1]:
            raise ValueError(
                f"generator.output_sparse_init must be at most the {self.hidden[-1]} units of the "
                f"last hidden layer, got {n_inputs}"
            )

    def _fills_square_maps(self, channels: int) -> bool:
        units = self.hidden[-1] if self.hidden else 0
        side = math.isqrt(units // channels)
        return units > 0 and channels * side * side == units


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConvolutionConfig:
    """One convolutional layer of D: maxout over pieces, then the maximum over a window."""

    channels: Units
    """Feature maps."""
    pieces: Units = 2
    """Linear pieces of a maxout unit."""
    kernel: Units = 5
    """Height and width of the kernel, which moves by single pixels."""
    padding: int = Field(default=0, ge=0)
    """Zeros on each side of the maps below."""
    pool: Units = 1
    """Height and width of the windows over which the maximum is taken; 1: of none."""
    pool_stride: Units = 1
    """Units from one window to the next; the last one may reach beyond the border."""

    def __post_init__(self) -> None:
        if self.pool_stride > self.pool:
            raise ValueError(
                f"discriminator.convolutions: pool_stride must be pool, {self.pool}, at the most, "
                f"so that no unit is passed over, got {self.pool_stride}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiscriminatorConfig:
    """D: maxout hidden layers with dropout, one logit out."""

    convolutions: tuple[ConvolutionConfig, ...] = ()
    """Convolutional maxout layers between the pixels and `hidden`, as {channels: 32, kernel: 8,
    padding: 4, pool: 4, pool_stride: 2}; empty: none, as in the paper's MNIST run."""
    hidden: tuple[Units, ...] = (240, 240)
    """Units of each hidden layer."""
    activation: Literal["maxout", "leaky_relu"] = "maxout"
    """Hidden units: maxout as in the paper, or ReLU with slope 0.2 below zero."""
    pieces: int = Field(default=5, ge=1)
    """Linear pieces of a maxout unit; read when `activation` is maxout."""
    dropout_input: float = Field(default=0.2, ge=0, lt=1)
    """Share of pixels that is dropped."""
    dropout_hidden: float = Field(default=0.5, ge=0, lt=1)
    """Share of units of each hidden layer, convolutional or not, that is dropped."""
    init_range: float | None = Field(default=0.005, gt=0)
    """Weights start uniform on +-this; null: on +-1/sqrt(inputs of the layer)."""
    max_column_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the incoming weights of any unit, of a maxout unit those of each piece, to
    which an update that exceeds it is scaled back; null: no limit."""

    def __post_init__(self) -> None:
        if self.convolutions and self.activation != "maxout":
            raise ValueError(
                f"discriminator.activation must be maxout with discriminator.convolutions, "
                f"which are, got {self.activation}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """Algorithm 1 and its optimisers."""

    n_steps: int = Field(default=50_000, ge=1)
    """Updates of G."""
    d_steps: int = Field(default=1, ge=1)
    """Updates of D per update of G (`k` in Algorithm 1)."""
    batch_size: int = Field(default=100, ge=2)
    """Images per minibatch (`m` in Algorithm 1)."""
    contrast_norm: float | None = Field(default=None, gt=0)
    """Given: both nets know images by their differences from the image's mean, scaled to this
    Euclidean norm (global contrast normalisation; 55 in the released code's CIFAR-10); null: by
    pixels in [0, 1]."""
    update_order: Literal["alternating", "simultaneous"] = "alternating"
    """`alternating`: Algorithm 1. `simultaneous`: the released code, in which G's update and the
    last of D's k updates are taken from the same parameters, fakes and dropout masks."""
    generator_loss: Literal["non_saturating", "minimax"] = "non_saturating"
    """What G descends: -log D(G(z)) (section 3), or log(1 - D(G(z))) (equation 1)."""
    d_loss_scale: float = Field(default=1.0, gt=0)
    """Factor on D's loss -V(D, G); the released code has 0.5. SGD feels it, Adam does not."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum (the paper), or Adam."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Step size at update 0, of both nets unless `d_learning_rate` is set."""
    d_learning_rate: float | None = Field(default=None, gt=0)
    """Step size of D at update 0; null: `learning_rate`."""
    decay_per_step: float = Field(default=1.000004, ge=1)
    """The step size is divided by this at every update."""
    min_learning_rate: float = Field(default=1e-6, ge=0)
    """Floor of the decayed step size."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Momentum of SGD at the start."""
    final_momentum: float = Field(default=0.7, ge=0, lt=1)
    """Momentum of SGD from update `momentum_steps` on; linear before."""
    momentum_steps: int = Field(default=125_000, ge=1)
    """Updates over which momentum grows: 250 epochs of 500 in the released code."""
    adam_beta1: float = Field(default=0.5, ge=0, lt=1)
    """Adam's decay of the first moment."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Adam's decay of the second moment."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """What is added to the root of Adam's second moment."""
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay an update of the exponential average of G that is sampled; 0: G itself (the paper)."""
    report_every: int = Field(default=500, ge=1)
    """Updates of G between two reports of the losses."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the matrix products; parameters and losses stay float32."""
    compile: bool = False
    """Fuse the passes through both nets with torch.compile; pays off on a GPU, in long runs."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConditionalConfig:
    """The conditional GAN of section 7: c into both G and D."""

    on: Literal["labels", "vectors"] = "labels"
    """Conditions: the class of an image, or the vector that the data set has beside it."""
    scale: float = Field(default=1.0, gt=0)
    """What conditions are multiplied by where a net takes them beside its other inputs."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistortionConfig:
    """Small random changes after which an image is of the same thing; by default none."""

    rotation: float = Field(default=0.0, ge=0, le=180)
    """Degrees by which images are turned at the most."""
    zoom: float = Field(default=0.0, ge=0, lt=1)
    """Share by which they are made larger or smaller at the most."""
    shear: float = Field(default=0.0, ge=0, le=1)
    """Share of its height over the middle by which a row of them is moved at the most."""
    shift: float = Field(default=0.0, ge=0)
    """Pixels by which they are shifted at the most, in each direction."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InferenceConfig(DistortionConfig):
    """The inference net E of section 7, which predicts z given x; `train` is of its descent.

    Distorted are the samples that E learns from.
    """

    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    """What E predicts, side by side: 0 is z, i the i-th hidden layer of G. Ascending."""
    hidden: tuple[Units, ...] = Field(default=(1024, 1024), min_length=1)
    """Units of each hidden layer of E."""
    batch_norm: bool = True
    """Batch normalisation before each leaky ReLU of E."""
    dropout_input: float = Field(default=0.0, ge=0, lt=1)
    """Share of pixels that E does not see in training."""
    dropout_hidden: float = Field(default=0.0, ge=0, lt=1)
    """Share of units of each hidden layer of E that is dropped in training."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the normal noise on their pixels, which lie in [0, 1]."""
    reconstruction: float = Field(default=0.0, ge=0)
    """Weight of |G(E(x)) - x|^2 of training images, as a share of these images' variance, beside
    the error of the codes of samples, as a share of the codes'; 0: E sees samples alone."""
    distort_images: bool = False
    """Whether E sees training images distorted as samples are, while G(E(x)) is to be the image
    before that."""
    generator: Literal["frozen", "joint"] = "frozen"
    """G: the promoted one that the run starts from, which stays as it is; or one that is trained
    with D at the same time, from the beginning, by the same `train`."""
    joint_z: Literal["same", "fresh"] = "same"
    """`joint`: E learns from the z of G's update, or from others."""
    refine_steps: int = Field(default=50, ge=1)
    """Steps by which refined codes are scored: of Adam, on |G(code) - x|^2, from E(x) on."""
    refine_rate: float = Field(default=0.05, gt=0)
    """Step size of refinement, in standard deviations of the units of a code."""

    def __post_init__(self) -> None:
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"inference.layers must ascend, each once, got {list(self.layers)}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SharedConditionalConfig:
    """The shared model of all conditionals, of section 7; `generator` is the part behind h."""

    encoder_channels: tuple[Units, ...] = (16, 32)
    """Feature maps of each convolution, of stride 2, that the visible pixels pass first."""
    encoder_hidden: tuple[Units, ...] = Field(default=(512,), min_length=1)
    """Units of each layer from there to h, on which label and pixels depend."""
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of these units that is dropped."""
    scale: float = Field(default=4.0, gt=0)
    """What a label is multiplied by where a net takes it beside its other inputs."""
    energy_weight: float = Field(default=1.0, ge=0)
    """Weight of the energy score of two completions beside the loss of the game; 0: the game."""
    label_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy of the label; 0: hidden labels are not learnt."""
    everything_share: float = Field(default=0.15, ge=0, le=1)
    """Share of training rows with all pixels visible, by which classification is trained."""
    blocks_share: float = Field(default=0.1, ge=0, le=1)
    """Share of rows with blocks of random place and size, visible or hidden; the other rows have
    the masks of `gan.masks.GROUPS` by their weights there."""

    def __post_init__(self) -> None:
        if self.everything_share + self.blocks_share > 1:
            raise ValueError(
                f"shared_conditional.everything_share and blocks_share must be 1 or less "
                f"together, got {self.everything_share:g} and {self.blocks_share:g}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LearnedPriorConfig:
    """Better distributions of z while the nets are trained, of section 7."""

    method: Literal["importance", "stacked", "mixture", "top_k", "fixed"] = "importance"
    """`importance`: each z of G's updates and of its samples is drawn from a few candidates by
    what D says of their images. `stacked`: a net below z of a promoted generator learns what it is
    given. `mixture`: z is of a mixture of Gaussians whose means and widths are learned. `top_k`: G
    learns from the samples of a minibatch that D takes for images most. `fixed`: z of `prior`, to
    compare with."""
    hidden: tuple[Units, ...] = (1200,)
    """`stacked`: ReLU units of each hidden layer of the net below z."""
    begin: Literal["identity", "random"] = "identity"
    """`stacked`: whether the net begins by handing its noise on, or with random weights as in the
    released code."""
    output: Literal["support", "sigmoid"] = "support"
    """`stacked`: whether z covers the support of the generator's prior, or is of sigmoid units as
    in the released code, whatever that support."""
    output_bias: float = 0.0
    """`stacked`: initial bias of the net's output, before it becomes z; the released code has -2
    for its sigmoid units."""
    init_range: float | None = Field(default=None, gt=0)
    """`stacked`: the net's weights start uniform on +-this; null: on +-1/sqrt(inputs of the
    layer)."""
    freeze_generator: bool = False
    """`stacked`: train the net below z alone, and leave the generator above it as it is."""
    n_components: int = Field(default=20, ge=2)
    """`mixture`: Gaussians, of equal weight."""
    component_std: float = Field(default=0.7, gt=0, lt=1)
    """`mixture`: standard deviation of a coordinate within a Gaussian, in the mean over all; that
    of the whole mixture is 1."""
    candidates: int = Field(default=4, ge=2)
    """`importance`: draws of `prior` of which one becomes z."""
    top_k_decay: float = Field(default=0.99, gt=0, lt=1)
    """`top_k`: factor an epoch of the share of a minibatch that G learns from, at first all."""
    top_k_floor: float = Field(default=0.5, gt=0, le=1)
    """`top_k`: least share of a minibatch."""

    def __post_init__(self) -> None:
        if self.output == "sigmoid" and self.begin == "identity":
            raise ValueError(
                "learned_prior.begin must be random where learned_prior.output is sigmoid, which "
                "cannot hand noise on as it is, got identity"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SemiSupervisedConfig(DistortionConfig):
    """Classification with few labels, section 7; defaults: Salimans et al. (2016) on MNIST.

    Distorted are, by `feature_matching`, labelled images and, of unlabelled ones, the copies that
    are to be of the same class.
    """

    method: Literal["feature_matching", "discriminator_features", "inference_features"] = (
        "feature_matching"
    )
    """`feature_matching`: D tells K classes and fakes apart, G matches the means of D's features.
    `discriminator_features`: the paper's GAN, then a classifier on D's hidden layers.
    `inference_features`: a classifier on the features of a promoted inference net."""
    inference: InferenceConfig | None = None
    """Settings of that inference net; a run takes them over from what it starts from."""
    n_labels: int = Field(default=100, ge=1)
    """Labels, as many of each class, drawn once by `seed`."""
    hidden: tuple[Units, ...] = Field(default=(1000, 500, 250, 250, 250), min_length=1)
    """Units of each hidden layer of D; of `feature_matching`, as all that follows."""
    generator_hidden: tuple[Units, ...] = Field(default=(500, 500), min_length=1)
    """Units of each hidden layer of G."""
    noise_input: float = Field(default=0.3, ge=0)
    """Standard deviation of the noise that is added to D's pixels in training."""
    noise_hidden: float = Field(default=0.5, ge=0)
    """The same of each hidden layer of D."""
    init_from_data: bool = True
    """Whether units of D begin with mean 0 and variance 1 over training images; otherwise with
    weights of norm 1."""
    supervised_steps: int = Field(default=3_000, ge=1)
    """Updates of the net of D's shape that is trained on the labels alone, to compare with."""
    unlabelled_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of unlabelled images and fakes beside that of the labelled ones."""
    consistency_weight: float = Field(default=0.0, ge=0)
    """Weight of the cross-entropy of what D says of a distorted copy of an unlabelled image, given
    what it says of the image itself; 0: none, as in the source."""
    consistency_power: float = Field(default=1.0, gt=0)
    """Power to which the image's class probabilities are raised, and normalised anew, for that."""
    consistency_balance: bool = False
    """Whether they are first divided by how often D has given each class, as classes are alike
    frequent."""
    anneal_from: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps after which the step size falls linearly to 0; 1: never, as in the
    source."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VaeConfig:
    """A variational autoencoder, Kingma and Welling (2014); widths: Makhzani et al. (2015)."""

    dim: int = Field(default=8, ge=1)
    """Coordinates of z, which are independent standard Gaussians."""
    hidden: tuple[Units, ...] = Field(default=(1000, 1000), min_length=1)
    """Units of each hidden layer of the encoder; the decoder has them in reverse."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StackedCaeConfig:
    """A stacked contractive autoencoder, Rifai et al. (2011), sampled as by Rifai et al. (2012).

    Its layers are trained one after the other, each in an equal share of `train.n_steps`.
    """

    hidden: tuple[Units, ...] = Field(default=(500, 500), min_length=1)
    """Units of each layer, from the pixels up."""
    contraction: float = Field(default=1.0, ge=0)
    """Weight of the squared norm of the encoder's Jacobian beside the cross-entropy in nats."""
    walk_std: float = Field(default=1.0, gt=0)
    """Standard deviation of the walk's noise in the hidden units of the last layer."""
    samples_per_chain: int = Field(default=1, ge=1)
    """Samples that a walk gives to each thousand; 1: all are independent."""
    burn_in: int = Field(default=20, ge=1)
    """Steps from coin flips to the first sample of a walk; of many steps more walks end at black
    images."""
    thinning: int = Field(default=10, ge=1)
    """Steps between two samples of a walk; read where it gives more than one."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GsnConfig:
    """A deep generative stochastic network; defaults: released code of Bengio et al. (2014)."""

    hidden: tuple[Units, ...] = Field(default=(1500, 1500), min_length=1)
    """Units of each hidden layer, from the pixels up."""
    walkback: int = Field(default=4, ge=1)
    """Transitions of the chain from each training image, each with its reconstruction."""
    corruption: float = Field(default=0.4, ge=0, le=1)
    """Share of pixels that salt and pepper replaces before each transition."""
    hidden_noise: float = Field(default=2.0, ge=0)
    """Standard deviation of the noise before and after the nonlinearity of each hidden layer but
    the first, which has none."""
    samples_per_chain: int = Field(default=1, ge=1)
    """Samples that a chain gives to each thousand; 1: all are independent."""
    burn_in: int = Field(default=50, ge=1)
    """Transitions from coin flips to the first sample of a chain."""
    thinning: int = Field(default=10, ge=1)
    """Transitions between two samples of a chain; read where it gives more than one."""

    def __post_init__(self) -> None:
        if self.walkback < len(self.hidden):
            raise ValueError(
                f"gsn.walkback must be at least the {len(self.hidden)} hidden layers, so that the "
                f"last of them takes part in a reconstruction, got {self.walkback}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GibbsConfig:
    """What the energy-based models share: Gibbs chains, of training and of sampling."""

    gibbs_steps: int = Field(default=1, ge=1)
    """Steps of the chains at every update (`k` of CD-k)."""
    anneal_from: float = Field(default=0.0, ge=0, le=1)
    """Share of each phase of training after which the step size falls linearly to 0; 1: never."""
    sample_burn_in: int = Field(default=200, ge=1)
    """Gibbs steps before the first samples, from where the chains of training ended."""
    sample_thin: int = Field(default=20, ge=1)
    """Gibbs steps between two samples of a chain, of which there are as many as images in a
    minibatch."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DbnConfig(GibbsConfig):
    """A deep belief net, Hinton, Osindero and Teh (2006)."""

    hidden: tuple[Units, ...] = Field(default=(500, 2000), min_length=1)
    """Units of each hidden layer, the lowest first; each has the same share of the steps."""
    persistent: bool = True
    """Whether chains go on from update to update, rather than start at each minibatch."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DbmConfig(GibbsConfig):
    """A deep Boltzmann machine, Salakhutdinov and Hinton (2009), and its sizes for MNIST."""

    hidden: tuple[Units, ...] = Field(default=(500, 1000), min_length=2)
    """Units of each hidden layer, the lowest first."""
    joint_share: float = Field(default=0.6, gt=0, lt=1)
    """Share of the steps that trains all layers together; before, each has as many as another."""
    joint_learning_rate: float = Field(default=0.01, gt=0)
    """Step size at the beginning of these; before, `train.learning_rate`."""
    mean_field_steps: int = Field(default=10, ge=1)
    """Passes over the hidden layers by which their distribution given an image is approximated."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """When and how samples are scored."""

    score_every: int = Field(default=5_000, ge=1)
    """Updates of G between two scores; each also writes a checkpoint and a sample grid."""
    n_samples: int = Field(default=10_000, ge=100)
    """Samples of G behind each Parzen score."""
    n_sigma_images: int = Field(default=1_000, ge=10)
    """Validation images on which the window width is chosen; all of them where there are fewer."""
    chunk: int = Field(default=500, ge=1)
    """Images scored in one pass: bounds memory, does not change the score."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that a trial keeps beside its best one."""
    extractor: str = "auto"
    """The space of the Fréchet distance and its like. `auto`: features of a classifier trained on
    the training split (without labels: of an autoencoder); else `package.module:function`."""
    extractor_steps: int = Field(default=5_000, ge=1)
    """Minibatches that train classifier or autoencoder; for MNIST the default's is shipped."""

    def __post_init__(self) -> None:
        if self.extractor != "auto" and not IMPORT_PATH.fullmatch(self.extractor):
            raise ValueError(
                f"evaluation.extractor must be auto or package.module:function, "
                f"got {self.extractor!r}"
            )


OF_THE_GENERATOR_ALONE = (
    "generator.deconv_channels",
    "generator.output",
    "discriminator.convolutions",
    "train.contrast_norm",
)
"""Settings that extensions, whose nets take and make rows of pixels in [0, 1], cannot follow."""

UNREAD_BY_FEATURE_MATCHING = (
    "train.d_steps",
    "train.update_order",
    "train.generator_loss",
    "train.d_loss_scale",
    "train.compile",
)
"""Settings of Algorithm 1 that feature matching, which is another game, does not read."""

UNREAD_BY_BASELINES = (
    "prior",
    "generator",
    "discriminator",
    "train.d_steps",
    "train.contrast_norm",
    "train.update_order",
    "train.generator_loss",
    "train.d_loss_scale",
    "train.d_learning_rate",
    "train.average_decay",
    "train.precision",
    "train.compile",
)
"""Sections, and settings of Algorithm 1, that baselines, which have no players, do not read."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """One training run."""

    seed: int = Field(default=0, ge=0, le=2**53)
    """The one seed, from which every random stream of the run is derived."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU that the run was given, else the CPU."""
    data: DataConfig = DataConfig()
    prior: PriorConfig = PriorConfig()
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    start: str | None = None
    """The promoted model that an extension starts from which needs one: its folder, NAME[@ALIAS]
    or NAME/VERSION; null: the generator of the run that it is a part of, else the champion of the
    model beside its own (`mnist-generator` beside `mnist-inference`).  The pipeline puts a folder
    named by the SHA-256 of the model's manifest in its place, so that a sweep knows its own."""
    conditional: ConditionalConfig | None = None
    """Given, if only as `{}`: train a conditional GAN."""
    inference: InferenceConfig | None = None
    """Given, if only as `{}`: train a net that predicts z given x."""
    shared_conditional: SharedConditionalConfig | None = None
    """Given, if only as `{}`: train one model of all conditionals."""
    learned_prior: LearnedPriorConfig | None = None
    """Given, if only as `{}`: learn what z is drawn from."""
    semi_supervised: SemiSupervisedConfig | None = None
    """Given, if only as `{}`: train a classifier with few labels."""
    vae: VaeConfig | None = None
    """Given, if only as `{}`: train a variational autoencoder, to compare the GAN with."""
    stacked_cae: StackedCaeConfig | None = None
    """Given, if only as `{}`: train a contractive autoencoder, to compare the GAN with."""
    gsn: GsnConfig | None = None
    """Given, if only as `{}`: train a generative stochastic network, to compare the GAN with."""
    dbn: DbnConfig | None = None
    """Given, if only as `{}`: train a deep belief net, to compare the GAN with."""
    dbm: DbmConfig | None = None
    """Given, if only as `{}`: train a deep Boltzmann machine, to compare the GAN with."""

    @property
    def task(self) -> Task:
        """What is trained: that of the section which is given."""
        return next((task for task in SECTIONS if getattr(self, task) is not None), "generator")

    def __post_init__(self) -> None:
        self._require_one_task()
        inference = self.inference
        if inference and inference.generator == "joint":
            n_hidden = len(self.generator.hidden)
            if inference.layers[-1] > n_hidden:
                raise ValueError(
                    f"inference.layers must be from 0, which is z, to {n_hidden}, the last hidden "
                    f"layer of G, got {list(inference.layers)}"
                )
        if self.shared_conditional and self.train.update_order != "alternating":
            raise ValueError(
                f"train.update_order must be alternating with shared_conditional, "
                f"got {self.train.update_order}"
            )
        is_resampled = self.learned_prior is not None and self.learned_prior.method == "importance"
        if is_resampled and self.train.update_order != "alternating":
            raise ValueError(
                f"train.update_order must be alternating with learned_prior.method importance, "
                f"got {self.train.update_order}"
            )
        if self.semi_supervised and self.semi_supervised.method == "feature_matching":
            self._require_unset(
                UNREAD_BY_FEATURE_MATCHING, "semi_supervised.method feature_matching"
            )
        if self.evaluation.score_every % self.train.report_every:
            raise ValueError(
                f"evaluation.score_every must be a multiple of train.report_every "
                f"({self.train.report_every}), got {self.evaluation.score_every}"
            )

    def _require_one_task(self) -> None:
        if len(given := [task for task in SECTIONS if getattr(self, task) is not None]) > 1:
            raise ValueError(
                f"a run trains one extension or baseline at the most, got {', '.join(given)}"
            )
        if self.task in BASELINES:
            self._require_unset(UNREAD_BY_BASELINES, self.task)
        elif self.task != "generator":
            self._require_unset(OF_THE_GENERATOR_ALONE, self.task)
        if self.train.contrast_norm is not None and self.generator.output != "linear":
            raise ValueError(
                f"generator.output must be linear with train.contrast_norm, by which pixels are "
                f"below 0, too, got {self.generator.output}"
            )
        if self.train.n_steps < (n_phases := self._n_phases()):
            raise ValueError(
                f"train.n_steps must be {n_phases} or more, one for each phase of {self.task}, "
                f"got {self.train.n_steps}"
            )

    def _n_phases(self) -> int:
        if self.dbn:
            return len(self.dbn.hidden)
        return len(self.dbm.hidden) + 1 if self.dbm else 1

    def _require_unset(self, paths: Sequence[str], method: str) -> None:
        """Refuse settings that a method does not read, rather than pass over them in silence.

        Args:
            paths: of settings, or of sections, which stand for all of their settings.
            method: that does not read them, for people.
        """
        for path in paths:
            section, _, only = path.partition(".")
            given = getattr(self, section)
            for name in [only] if only else field_names(type(given)):
                value, usual = getattr(given, name), getattr(type(given)(), name)
                if value != usual:
                    raise ValueError(
                        f"{section}.{name} has no part in {method}: leave it at {usual}, "
                        f"got {value}"
                    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepConfig:
    """A search over run configurations."""

    n_trials: int = Field(default=8, ge=1)
    """Trials in all; with `search: grid` the size of the grid counts instead."""
    objective: Objective = "frechet_distance_valid"
    """The score that decides everywhere, of the validation split; `gan.tasks` says which of them a
    task has."""
    search: Literal["grid", "random", "optuna"] = "random"
    """Where the next trial lies: every combination, independent draws, or Optuna's TPE."""
    scheduler: Literal["fifo", "asha"] = "asha"
    """`fifo`: every trial runs to its end. `asha`: weak ones stop early, on the axis `step`."""
    grace_steps: int = Field(default=1_000, ge=1)
    """Updates of G that ASHA gives every trial before it may stop one."""
    reduction_factor: int = Field(default=3, ge=2)
    """ASHA lets the best 1/this of a rung go on to the next, this many times as long."""
    space: dict[str, dict[str, list[Any]]] = Field(default_factory=dict)
    """Dotted path in `base` -> {choice: [...]}, {uniform: [low, high]}, {loguniform: [low, high]}
    or {randint: [low, high]} (both ends included)."""
    seed: int = Field(default=0, ge=0, le=2**53)
    """Seed of the search; trial i trains with base.seed + i."""
    cpus_per_trial: float = Field(default=1.0, gt=0)
    """CPUs that a trial owns; it uses as many threads of torch."""
    gpus_per_trial: float = Field(default=0.0, ge=0)
    """GPUs that a trial owns; a fraction lets several share one."""
    max_retries: int = Field(default=2, ge=0)
    """Times a trial that failed is started again from its checkpoint."""
    time_budget_seconds: float | None = Field(default=None, gt=0)
    """Wall time of each run of the sweep after which no trial goes on, counted from when its first
    trial runs; null: no limit."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LimitsConfig:
    """What samples must reach before they are compared with the champion's; `pipeline.checks`.

    A share of what real images reach is of training images in place of samples, scored alike.
    """

    max_frechet_ratio: float = Field(default=2.0, ge=1)
    """Multiple of real images' Fréchet distance beyond which a Parzen score above theirs is taken
    for smoothing."""
    min_precision: float = Field(default=0.5, ge=0, le=1)
    """Least precision, as a share of what real images reach."""
    min_coverage: float = Field(default=0.3, ge=0, le=1)
    """Least coverage, as a share of what real images reach."""
    max_outliers: float = Field(default=0.01, ge=0, le=1)
    """Largest share of samples farther from all training images than any real one, in pixels or
    in pixels freed of brightness and contrast."""
    max_repeats: float = Field(default=0.01, ge=0, le=1)
    """Largest share of samples that equal an earlier one."""
    max_copies: float = Field(default=0.05, ge=0, le=1)
    """Largest share of samples as near to a training image, in pixels, as the nearest 1 % of
    held-out images are."""
    max_near_repeats: float = Field(default=0.25, ge=0, le=1)
    """Largest share of samples that are as near to another one as 1 % of real images are."""
    min_copying_z: float = Field(default=-5.0, le=0)
    """Least C_T of the three-sample test (among pixels: Z_U), in standard errors, below which
    samples are copies if their authenticity says so, too."""
    min_authenticity: float = Field(default=0.75, ge=0, le=1)
    """Least authenticity, as a share of held-out images' own."""
    max_grey_ratio: float = Field(default=2.0, ge=1)
    """Largest ratio of the share of grey pixels to the real images', or of theirs to it."""
    min_condition_accuracy: float = Field(default=0.97, ge=0, le=1)
    """Of a conditional GAN: least share of samples that are of the class asked for."""
    min_class_accuracy: float = Field(default=0.9, ge=0, le=1)
    """The same of the samples of any one class."""
    min_completion_gain: float = 0.0
    """Of a shared model: by how much hidden pixels must at least be likelier than under
    nearest-neighbour and mean completion, nats a pixel, for each group of masks that leave a
    quarter of an image visible, or more."""
    min_agreement_gain: float = 0.0
    """By how much more of its completions there must at least be of the right class."""
    max_classification_error: float = Field(default=0.025, ge=0, le=1)
    """Largest share of images that it puts into another class than theirs, all pixels visible."""
    min_few_labels_accuracy: float = Field(default=0.95, ge=0, le=1)
    """Of a classifier with few labels: least share of the labelled images that it classifies
    rightly."""
    max_unexplained: float = Field(default=1.0, ge=0)
    """Of an inference net: largest mean of |G(E(x)) - x|^2, as a share of the images' variance."""
    allow_unavailable: bool = False
    """Whether a check passes whose score could not be taken: of too few samples, say."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromoteConfig:
    """The gate between a sweep's winner and the registry."""

    model: str = Field(default="mnist-generator", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the registered model whose alias `champion` is moved."""
    min_standard_errors: float = Field(default=2.0, ge=0)
    """How far a candidate must beat the champion, in standard errors of the paired difference."""
    limits: LimitsConfig = LimitsConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PipelineConfig:
    """What `gan run` does."""

    name: str = Field(default="gan", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the MLflow experiment and of the folder under runs/."""
    base: RunConfig = RunConfig()
    """What every trial shares; paths of `sweep.space` and of `--set` lie in here."""
    sweep: SweepConfig = SweepConfig()
    promote: PromoteConfig = PromoteConfig()
    extensions: tuple[str, ...] = ()
    """Presets (or YAML files) of extensions that are run on the same images behind the generator,
    whether or not the gate promoted it."""


def load_config(settings: Mapping[str, Any], assignments: Iterable[str] = ()) -> PipelineConfig:
    """The configuration of a preset's `settings` with `assignments` on top.

    Args:
        settings: nested mapping as read from YAML; states only differences from the defaults.
        assignments: `a.b=value` each, the value in YAML; a path that does not begin with a field
            of `PipelineConfig` lies in `base`, so `train.n_steps=100` sets `base.train.n_steps`,
            and `sweep.space.train.d_steps.choice=[1, 2]` replaces one dimension of the space.

    Raises:
        ConfigError: with every problem found, each by its dotted path.
    """
    tree = copy.deepcopy(dict(settings))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not (path and equals):
            raise ConfigError([f"--set takes path=value, got {assignment!r}"])
        try:
            value = read_yaml(text)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: the date 2014-13-32, say
            raise ConfigError([f"{path}: not a YAML value: {text!r}"]) from error
        if path.startswith(SPACE):
            # The keys of a space are dotted paths themselves; what follows the last dot is a kind.
            key, _, kind = path.removeprefix(SPACE).rpartition(".")
            _set_leaf(tree, ["sweep", "space", key], {kind: value})
        elif path.split(".")[0] in field_names(PipelineConfig):
            set_path(tree, path, value)
        else:
            set_path(tree, f"base.{path}", value)
    config: PipelineConfig = _validate(PipelineConfig, tree)
    return config


class _Yaml(yaml.SafeLoader):
    pass


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str) -> Any:
    """The value of a YAML text, with 1e-3 a number as in YAML 1.2; PyYAML alone reads a string.

    Raises:
        yaml.YAMLError: if the text is not YAML.
    """
    return _Yaml(text).get_single_data()


def run_config(settings: Mapping[str, Any]) -> RunConfig:
    """The run configuration of a nested mapping; the inverse of `to_dict`.

    Raises:
        ConfigError: with every problem found, each by its dotted path.
    """
    config: RunConfig = _validate(RunConfig, settings)
    return config


def with_overrides(base: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """`base` with dotted paths set to new values, checked again as a whole.

    Raises:
        ConfigError: with every problem found, each by its dotted path.
    """
    tree = to_dict(base)
    for path, value in overrides.items():
        set_path(tree, path, copy.deepcopy(value))  # a later path may lie within it
    return run_config(tree)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested JSON values; tuples become lists."""
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value, for every leaf of a nested mapping."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def digest(config: Any) -> str:
    """SHA-256 of a configuration (or of any JSON tree), as 64 hexadecimal digits."""
    tree = config if isinstance(config, Mapping | list) else to_dict(config)
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one leaf of a nested mapping by its dotted path, making what is missing on the way.

    Raises:
        ConfigError: if a name on the way is a value rather than a group of settings.
    """
    _set_leaf(tree, path.split("."), value)


def _set_leaf(tree: dict[str, Any], names: Sequence[str], value: Any) -> None:
    *parents, leaf = names
    node = tree
    for depth, parent in enumerate(parents):
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            path, where = ".".join(names), ".".join(parents[: depth + 1])
            raise ConfigError([f"{path}: {where} is a single value and has no settings below it"])
    node[leaf] = value


def field_names(kind: type) -> list[str]:
    """Names of the settings of one configuration class."""
    return [field.name for field in dataclasses.fields(kind)]


_PLAINER = {
    "dataclass_type": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list, as [a, b]",
}
"""Problems of which pydantic speaks in terms of Python."""


def _validate(kind: type, settings: Mapping[str, Any]) -> Any:
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        raise ConfigError([_describe(kind, detail) for detail in error.errors()]) from error


def _describe(kind: type, detail: Any) -> str:
    """One problem as `path: what must hold, got value`; for a misspelt key the nearest name."""
    names = [str(part) for part in detail["loc"]]
    path = ".".join(names)
    if detail["type"] == "unexpected_keyword_argument":
        known = field_names(_class_at(kind, names[:-1]))
        close = difflib.get_close_matches(names[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        return f"{path}: unknown setting; {hint}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not path or detail["type"] == "value_error":
        return message
    message = _PLAINER.get(detail["type"], message)
    message = message.partition(", got ")[0]  # a few say it themselves, in words
    return f"{path}: {message[:1].lower()}{message[1:]}, got {detail['input']!r}"


def _class_at(kind: type, names: list[str]) -> type:
    for name in names:
        if name.isdigit():  # the place in a list of what `kind` already is
            continue
        hint = get_type_hints(kind)[name]
        candidates = [hint, *get_args(hint)]
        kind = next(c for c in candidates if isinstance(c, type) and dataclasses.is_dataclass(c))
    return kind
