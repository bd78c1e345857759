"""The parameters of a fit: each is declared and documented here once."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from skhebae._sklearn import Interval, RealNotInt, StrOptions
from skhebae.fitted.build import PriorFactory
from skhebae.likelihoods import BY_DTYPE, LIKELIHOODS, Likelihood
from skhebae.networks import ACTIVATIONS, DecoderFactory, EncoderFactory
from skhebae.objectives import Objective

T = TypeVar("T", bound=type)


def parameter(*constraints: Any, default: Any, kw_only: bool = True) -> Any:
    """Declare a parameter: scikit-learn's constraints on its values, and its default."""
    return field(default=default, kw_only=kw_only, metadata={"constraints": list(constraints)})


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(parameter, field))
def with_parameters(cls: T) -> T:
    """Turn the declared parameters of a class into its constructor, constraints and docs.

    The docstring of the class has its own parameters and attributes only; those of its bases
    are added in the order of the constructor.
    """
    made: Any = dataclass(repr=False, eq=False, kw_only=True)(cls)
    declared = [f for f in fields(made) if f.init]
    made._parameter_constraints = {f.name: f.metadata["constraints"] for f in declared}
    if cls.__doc__ is not None:  # python -OO strips docstrings
        made.__doc__ = join_docs(cls, [f.name for f in declared])
    return cls


def join_docs(cls: type, order: Sequence[str]) -> str:
    """Return the docstring of a class with the parameters and attributes of its bases."""
    own = split_doc(cls.__dict__["__doc__"])
    for section in ("Parameters", "Attributes"):
        entries: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            text = split_doc(base.__dict__.get("__doc__") or "").get(section, "")
            # An entry begins in the first column; its description is indented.
            for entry in filter(None, re.split(r"\n(?=\S)", text)):
                names = entry.split(" : ")[0]
                # Those of this class come after those of its bases, as in the constructor.
                entries.pop(names, None)
                entries[names] = entry
        if section == "Parameters":
            entries = {name: entries[name] for name in order if name in entries}
        if entries:
            own[section] = "\n".join(entries.values())
    first = own.pop("")
    numpydoc_order = ("Parameters", "Attributes", "See Also", "Notes", "References", "Examples")
    parts = [f"{name}\n{'-' * len(name)}\n{own[name]}" for name in numpydoc_order if name in own]
    return "\n\n".join([first, *parts]) + "\n"


def split_doc(doc: str) -> dict[str, str]:
    """Split a numpydoc docstring into sections by title; the text before them has the title ""."""
    pieces = re.split(r"(?m)^([A-Z][A-Za-z ]+)\n-+\n", inspect.cleandoc(doc))
    titles = ["", *pieces[1::2]]
    return {title: text.strip("\n") for title, text in zip(titles, pieces[::2], strict=True)}


@with_parameters
class Parameters(ABC):
    r"""Parameters that all autoencoders share.

    Parameters
    ----------
    n_components : int or float, default=10
        Number of dimensions of the code. A number between 0 and 1 is a share of variance: as many
        components as PCA needs to explain it (`n_components_`).
    hidden_layer_sizes : tuple of int, default=(128,)
        Sizes of the encoder's hidden layers. The decoder mirrors them. ``()`` makes both linear.
    activation : str, default="gelu"
        Activation between linear layers: "gelu", "silu", "relu", "tanh", "elu", "softplus",
        "logistic" or "identity". The outputs of encoder and decoder are linear.
    likelihood : str, type of Likelihood or mapping, default="auto"
        Family of p(x | z). "auto" is "gaussian" for tables of numbers. In a pandas or polars frame
        with other columns, each column gets a family by its dtype: "categorical" for text and
        categories, "ordinal" for ordered ones, "boolean", "integer", "datetime", and "binned", a
        softmax over bins, for other numbers. "from_dtype" does so for every frame. A mapping from
        column names to families changes some of them, and also takes "gaussian", "quantile",
        "student_t", ``Circular(period=24)`` and classes of your own.

        "gaussian" learns one noise variance per feature, never under 1 % of the variance of the
        feature, so units do not matter. "bernoulli" takes values within [0, 1]. "poisson",
        "negative_binomial" and "zero_inflated_negative_binomial" take counts, integers >= 0: the
        encoder sees them log-normalised, and the decoder gives the share of each feature in the
        total of a row. The two negative binomials learn an inverse dispersion per feature, and
        the last one a probability of extra zeros. A subclass of `skhebae.likelihoods.Likelihood`
        is a family of your own.
    unknown_category : {"warn", "error", "ignore"}, default="warn"
        What to do about categories that `fit` did not see. They count as missing values, with or
        without a warning, or raise an error.
    encode_batch : bool, default=False
        Whether the encoder sees the `batch` of a row too, and not only the decoder. `transform`
        then needs `batch`. An `encoder` of your own does not support this.
    encoder : callable, default=None
        ``encoder(shape, n_outputs)`` returns a new ``torch.nn.Module`` that maps standardised rows
        (n, \*shape) to (n, n_outputs): the code, and the scales of its noise if the estimator has
        them. `shape` is ``(n_features,)`` or `image_shape`. Pass a function or class from the top
        level of a file, so that the estimator can be cloned and pickled. The model trains a
        copy of the module in float32. Initial weights and dropout draw from torch's global
        random state, which is seeded for the fit and restored afterwards. None is the perceptron
        of `hidden_layer_sizes`.
    decoder : callable, default=None
        ``decoder(n_components, shape)`` returns a module that maps codes (n, n_components) to
        (n, \*shape): standardised means for the gaussian likelihood, logits for bernoulli.
    image_shape : tuple of int, default=None
        Shape in which `encoder` and `decoder` see a row, for example (1, 28, 28) for channels,
        height and width. Rows are such images flattened in C order.
    linear_path : bool or "auto", default="auto"
        Whether encoder and decoder are sums of a linear map and a perceptron, ``W x + b + f(x)``
        and ``V z + g(z)``. The linear maps start as principal component analysis of what the
        encoder sees, and the perceptrons at 0, so training only adds what is not linear. With up
        to 20,000 rows, `fit` first tries whether this reduces the error on a seventh of the rows,
        which it holds out. If not, the perceptrons stay at 0 (`is_linear_`), except in mixed
        frames. "auto" is True for the gaussian likelihood and for mixed frames if the
        networks are built-in ones with hidden layers, else False.
    input_noise : float or "auto", default="auto"
        Standard deviation of the Gaussian noise that training adds to the standardised input of
        the encoder, as in a denoising autoencoder. 0 turns it off. "auto" is 0 with a linear path
        and for linear networks. Otherwise it is 0.3, or 1 for counts, as long as the encoder
        has more weights than there are rows, and shrinks in proportion for larger tables.
    input_dropout : float or "auto", default="auto"
        Share of the observed entries that training hides from the encoder at random, so that it
        learns to do without them. The loss still counts them. "auto" is 0.2 if rows of `fit` have
        missing entries, else 0.
    learning_rate_init : float or "auto", default="auto"
        Initial learning rate of Adam. "auto" is 0.01 with a linear path, else 0.005.
    learning_rate : {"linear", "constant"} or callable, default="linear"
        How `fit` changes the learning rate: "linear" lowers it to 0 over `max_iter` epochs,
        "constant" keeps it, and a callable returns its factor, ``learning_rate(epoch)``, with
        epochs counted from 0. `partial_fit` does not change it.
    weight_decay : float or "auto", default="auto"
        Decoupled decay of the weight matrices (AdamW), except those of the linear path. "auto" is
        ``min(10, 400 / n_samples)`` with a linear path, ``min(0.3, 400 / n_samples)`` for
        counts, else 0.
    batch_size : int or "auto", default="auto"
        Smallest number of rows in a minibatch. The remainder is spread evenly, and fewer rows
        make one minibatch. "auto" is an eighth of the rows, between 32 and 128; with a linear
        path it is a quarter, between 64 and 256. It is at least 4 * n_components.
    max_iter : int or "auto", default="auto"
        Number of epochs. "auto" is a budget that grows with the table: up to 6000 optimiser
        steps, or 1900 with a linear path, and at least 5 epochs. It never warns. A number is a
        limit: training stops earlier if the loss is flat, and warns if it is not flat at the
        limit.
    whiten : bool or "reliability", default=False
        Scale of the codes. Their axes are ordered by what they explain, like those of PCA. With
        False, distances between codes are those between rows, as far as codes explain them
        linearly, in the units that the networks see; for counts, they are the deviance
        between decoded rows. With True, codes have the scale of the model: mean 0 and
        covariance I if the objective asks for that. "reliability" multiplies those by the
        square root of ``w_k / (1 + w_k)``, where w_k is the Fisher information about component k
        in a row. That factor is near 1 for components that a row determines and near 0 for
        others. Reconstructions, scores and samples do not depend on `whiten`. A `prior` other
        than N(0, I) keeps its own axes and scale.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the rows, stop when their loss no longer
        improves, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the rows that `early_stopping` holds out.
    n_iter_no_change : int, default=10
        Patience in epochs, and at least 100 optimiser steps.
    tol : float, default=0.001
        Smallest improvement of the loss that counts, in nats per feature.
    warm_start : bool, default=False
        Whether `fit` continues from the fitted networks, with the standardisation of the rows
        that they were first fitted to.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1" or "mps". "auto" is CUDA if present, else the CPU. Under torchrun
        it is the GPU of LOCAL_RANK.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the networks' matrix products during training. "auto" is bfloat16 if the
        processor multiplies it natively and a layer is large enough to gain by it (65,536
        weights). Everything else is in float32 or wider, and so is everything after training.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of rows and the noise. An int makes fits
        identical.
    window_mb : float, default=400
        Megabytes of rows held in memory at a time if the table is outside memory (backed AnnData,
        HDF5, zarr, dask, a larger `numpy.memmap`). An epoch visits blocks of rows in random
        order, and rows at random within a window of blocks. A larger window mixes them better.
    compile : bool, default=False
        Whether to train through ``torch.compile``. It needs a C++ compiler, or Triton for a GPU,
        and tens of seconds before the first step. Use it for long fits of small networks on a
        GPU.
    distributed : bool or "auto", default="auto"
        Whether `fit` and `partial_fit` train in all processes of the default process group of
        ``torch.distributed``, which you initialise. Every process must call it with rows of its
        own, ``fit(X[rank::world_size])``, and some may have none. All end with the same
        model. A minibatch has `batch_size` rows per process. "auto" is True if there is a group of
        more than one process. True requires one, and False fits the rows of this process only.
    verbose : int, default=0
        1 shows a progress bar.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    n_components: float = parameter(
        Interval(Integral, 1, None, closed="left"),
        Interval(RealNotInt, 0, 1, closed="neither"),
        default=10,
        kw_only=False,
    )
    hidden_layer_sizes: Sequence[int] = parameter("array-like", default=(128,))
    activation: str = parameter(StrOptions(set(ACTIVATIONS)), default="gelu")
    likelihood: str | type[Likelihood] | Mapping[Any, Any] = parameter(
        StrOptions({*LIKELIHOODS, *BY_DTYPE}), type, Likelihood, Mapping, default="auto"
    )
    unknown_category: str = parameter(StrOptions({"warn", "error", "ignore"}), default="warn")
    encode_batch: bool = parameter("boolean", default=False)
    encoder: EncoderFactory | None = parameter(callable, None, default=None)
    decoder: DecoderFactory | None = parameter(callable, None, default=None)
    image_shape: Sequence[int] | None = parameter(tuple, list, None, default=None)
    linear_path: bool | str = parameter("boolean", StrOptions({"auto"}), default="auto")
    input_noise: float | str = parameter(
        Interval(Real, 0, None, closed="left"), StrOptions({"auto"}), default="auto"
    )
    input_dropout: float | str = parameter(
        Interval(Real, 0, 1, closed="left"), StrOptions({"auto"}), default="auto"
    )
    learning_rate_init: float | str = parameter(
        Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), default="auto"
    )
    learning_rate: str | Callable[[int], float] = parameter(
        StrOptions({"linear", "constant"}), callable, default="linear"
    )
    weight_decay: float | str = parameter(
        Interval(Real, 0, None, closed="left"), StrOptions({"auto"}), default="auto"
    )
    batch_size: int | str = parameter(
        Interval(Integral, 2, None, closed="left"), StrOptions({"auto"}), default="auto"
    )
    max_iter: int | str = parameter(
        Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), default="auto"
    )
    whiten: bool | str = parameter("boolean", StrOptions({"reliability"}), default=False)
    early_stopping: bool = parameter("boolean", default=False)
    validation_fraction: float = parameter(Interval(Real, 0, 1, closed="neither"), default=0.1)
    n_iter_no_change: int = parameter(Interval(Integral, 1, None, closed="left"), default=10)
    tol: float = parameter(Interval(Real, 0, None, closed="left"), default=1e-3)
    warm_start: bool = parameter("boolean", default=False)
    device: str = parameter(str, default="auto")
    precision: str = parameter(StrOptions({"auto", "float32", "bfloat16"}), default="auto")
    random_state: int | np.random.RandomState | None = parameter("random_state", default=None)
    window_mb: float = parameter(Interval(Real, 0, None, closed="neither"), default=400)
    compile: bool = parameter("boolean", default=False)
    distributed: bool | str = parameter("boolean", StrOptions({"auto"}), default="auto")
    verbose: int = parameter("verbose", default=0)

    @abstractmethod
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters of the constructor with their values, as scikit-learn does."""

    @abstractmethod
    def make_objective(self) -> Objective:
        """Make the objective from the parameters."""

    @property
    def prior_factory(self) -> PriorFactory | None:
        """Factory of the prior p(z); None is N(0, I)."""
        return None

    @property
    def prior_tilt(self) -> float | str | None:
        """Tilt of the built-in tilted prior, "auto" to choose one; None is another prior."""
        return None


def changes_result(parameters: Parameters) -> dict[str, Any]:
    """Return the parameters that change what is learned, with their values."""
    free = ("verbose", "device", "warm_start", "distributed", "whiten")
    params = parameters.get_params(deep=False)
    return {name: value for name, value in params.items() if name not in free}
