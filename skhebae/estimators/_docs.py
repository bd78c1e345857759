"""The parts of the class docstrings that the estimators share."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T", bound=type)

NETWORK = """\
hidden_layer_sizes : tuple of int, default=(128,)
        Hidden layers of the encoder; the decoder mirrors them. ``()`` makes
        both linear.
    activation : {"silu", "relu", "tanh", "gelu", "elu", "softplus", "logistic", \
"identity"}, default="silu"
        Between linear layers; the heads and the output are linear.
    likelihood : {"gaussian", "bernoulli", "poisson", "negative_binomial", \
"zero_inflated_negative_binomial"}, default="gaussian"
        p(x | z). "gaussian" learns one noise variance per feature, never under
        1 % of the feature's own variance, so units do not matter. "bernoulli"
        takes X within [0, 1]. The others take counts, integers >= 0: the encoder
        sees them log-normalised, the decoder gives the share of each feature in a
        row's total, and the two negative binomials learn an inverse dispersion (and
        a probability of extra zeros) per feature.
    encode_batch : bool, default=False
        Whether the encoder, and not the decoder alone, sees the `batch` of a row;
        `transform` then needs it too. Not with an `encoder` of your own."""

TRAINING = """\
encoder : callable, default=None
        ``encoder(shape, n_outputs)`` returns a new ``torch.nn.Module`` that maps
        standardised rows (n, \\*shape) to (n, n_outputs): the code, and the scales
        of its noise where the estimator has them. `shape` is ``(n_features,)``, or
        `image_shape`. A function or class at the top level of a file, so that the
        estimator can be cloned and pickled. Initial weights and dropout draw
        from torch's global random state, which is seeded for the fit and put
        back. None is the perceptron of `hidden_layer_sizes`.
    decoder : callable, default=None
        ``decoder(n_components, shape)`` returns a module that maps codes (n,
        n_components) to (n, \\*shape): standardised means for the gaussian
        likelihood, logits for bernoulli.
    image_shape : tuple of int, default=None
        Shape in which `encoder` and `decoder` see a row, for example (1, 28, 28)
        for channels, height and width; rows are such images flattened in C order.
    input_noise : float or "auto", default="auto"
        Standard deviation of the Gaussian noise that the encoder's
        standardised input gets during training (a denoising autoencoder); 0
        turns it off. "auto" is 0.3, of counts 1, while the encoder has more weights
        than there are rows, fades in proportion beyond, and is 0 for linear networks.
    learning_rate_init : float, default=0.005
        Of Adam at the start.
    learning_rate : {"linear", "constant"} or callable, default="linear"
        How it goes on in `fit`: down to 0 over `max_iter` epochs, unchanged, or by
        the factor that ``learning_rate(epoch)`` gives, epochs counted from 0.
        `partial_fit` does not change it.
    weight_decay : float, default=0.0
        Decoupled decay of the weight matrices (AdamW).
    batch_size : int or "auto", default="auto"
        Rows in a minibatch, at least: what is left over is spread evenly, so no
        minibatch is smaller. Fewer rows make one minibatch. "auto" is an
        eighth of the rows, within 32 and 128, and 4 * n_components at least.
    max_iter : int or "auto", default="auto"
        Epochs. "auto" grows the number of optimiser steps with the table, up
        to 6000 (5 epochs at least), and is a budget: it does not warn.
        A number is a limit: training stops before it when the loss is flat,
        and warns when it is not flat at the limit.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows, stop when their loss no
        longer improves, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of the rows held out by `early_stopping`.
    n_iter_no_change : int, default=10
        Patience in epochs, and at least 100 optimiser steps.
    tol : float, default=0.001
        Smallest improvement of the loss that counts, in nats per feature.
    warm_start : bool, default=False
        Let `fit` continue from the fitted networks, with the standardisation
        of the rows they were first fitted to.
    device : str, default="auto"
        "auto" takes CUDA if present, else the CPU; or "cpu", "cuda", "cuda:1", "mps".
        Under torchrun "auto" takes the GPU of LOCAL_RANK.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the networks' matrix products during training. "auto" is bfloat16
        where the processor multiplies it natively and a layer is large enough
        (65,536 weights) to gain by it. Everything else is float32 or wider,
        and so is everything after training.
    random_state : int, RandomState instance or None, default=None
        Of initial weights, order of rows and noise. An int gives identical fits.
    window_mb : float, default=400
        Of a table outside memory (backed AnnData, HDF5, zarr, dask, a larger
        `numpy.memmap`), megabytes of rows in memory at a time. An epoch sees blocks of
        rows in a random order, and rows at random within a window of blocks: the larger,
        the better they are mixed.
    compile : bool, default=False
        Train through ``torch.compile``, which needs a C++ compiler, or Triton for a GPU, and
        tens of seconds before the first step. For long fits of small networks on a GPU.
    distributed : bool or "auto", default="auto"
        Whether `fit` and `partial_fit` train in all processes of the default process group
        of ``torch.distributed``, which you initialise. All must then call it, each with its own
        rows, perhaps none: ``fit(X[rank::world_size])``; all end with the same model. Rows
        of a minibatch are `batch_size` a process. "auto" is yes where there is a group of more
        than one process; True asks for one; False fits this process's rows alone.
    verbose : int, default=0
        1 shows a progress bar."""

ATTRIBUTES = """\
n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of str
        Their names, if `X` had string names.
    n_iter_ : int
        Epochs trained.
    history_ : dict of list of float
        "loss", "reconstruction", "penalty", "elbo", "validation_loss" (NaN
        without early stopping) in nats a row, and "seconds", per epoch. "elbo"
        is the standard bound of the training minibatches whatever the objective,
        minus infinity for WAE, whose codes are points. HEBAE's
        penalty is reported above its mean over minibatches drawn from N(0, I),
        so that it is comparable between sizes, 0 for perfect codes, and may be
        negative; ``pandas.DataFrame(est.history_)`` makes it a frame.
    latent_mean_ : ndarray of shape (n_components,)
        Mean of the training set's aggregated posterior.
    latent_covariance_ : ndarray of shape (n_components, n_components)
        Its covariance, noise included.
    noise_variance_ : ndarray of shape (n_features,)
        Learned noise variance of each feature, in its squared unit; only with
        the gaussian likelihood.
    theta_ : ndarray of shape (n_features,)
        Learned inverse dispersion of each feature, the variance of its counts being
        ``mean + mean**2 / theta``; only with the negative binomial likelihoods.
    batches_ : ndarray
        Sorted labels of the experimental batches, if `fit` was given any."""


def shared_docs(cls: T) -> T:
    """Fill the ``{network}``, ``{training}`` and ``{attributes}`` of a class docstring."""
    if cls.__doc__ is not None:  # python -OO strips docstrings
        for name, text in (
            ("{network}", NETWORK),
            ("{training}", TRAINING),
            ("{attributes}", ATTRIBUTES),
        ):
            cls.__doc__ = cls.__doc__.replace(name, text)
    return cls
