"""The scikit-learn contract, shared by all estimators."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import field, replace
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from skhebae._sklearn import (
    ClassNamePrefixFeaturesOutMixin,
    Tags,
    TransformerMixin,
    fit_context,
)
from skhebae.data import Matrix, decode_frame, is_stream
from skhebae.distributed import name_lost_process
from skhebae.estimators.completed import completed_like, opposite_pairs
from skhebae.estimators.described import Described
from skhebae.estimators.recognise import as_table, refuse_no_table
from skhebae.estimators.saving import (
    file_attributes,
    file_parameters,
    load_estimator,
    split_state,
)
from skhebae.estimators.streaming import fit_each
from skhebae.estimators.tables import agreed_table, validate_table
from skhebae.exceptions import warn_caller
from skhebae.fitted import FittedAutoencoder, Parameters, fit_autoencoder, with_parameters
from skhebae.fitted.agreement import find_group, is_alone
from skhebae.fitted.labels import check_sample_weight
from skhebae.likelihoods import find_likelihood, resolve_likelihood
from skhebae.process import in_plain_modes
from skhebae.training import resolve_device

Float32Array = NDArray[np.float32]


class Posterior(NamedTuple):
    """Approximate posterior ``N(mean, F F^T)`` of each row.

    Attributes
    ----------
    mean : ndarray of shape (n_samples, n_components)
    covariance_factor : ndarray of shape (n_samples, n_components, n_components)
        Lower triangular F.
    """

    mean: Float32Array
    covariance_factor: Float32Array


def adopt_features(estimator: Any, autoencoder: Any) -> None:
    """Give an estimator around a fitted autoencoder the features that this was fitted to."""
    own = vars(estimator)
    own["n_features_in_"] = autoencoder.n_features_in_
    own.pop("feature_names_in_", None)
    if hasattr(autoencoder, "feature_names_in_"):
        own["feature_names_in_"] = autoencoder.feature_names_in_


@with_parameters
class BaseAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Described, Parameters):
    """Everything but the objective: a subclass declares its parameters and `make_objective`.

    Attributes
    ----------
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of str
        Their names, if `X` had string names.
    fitted_ : FittedAutoencoder
        The fitted model as a value without scikit-learn. The attributes below are read from it.
    n_iter_ : int
        Epochs trained.
    history_ : dict of list of float
        Numbers per epoch: "loss", "reconstruction", "penalty", "elbo" and "validation_loss" (NaN
        without early stopping) in nats per row, and "seconds". "elbo" is the standard bound of
        the training minibatches, whatever the objective; it is minus infinity for WAE, whose
        codes are points. HEBAE's penalty is reported minus its mean over minibatches drawn from
        N(0, I), so it is comparable between minibatch sizes, 0 for perfect codes, and may be
        negative. ``pandas.DataFrame(model.history_)`` makes a frame of it.
    n_components_ : int
        Dimensions of the code.
    is_linear_ : bool
        Whether the networks stayed linear, because perceptrons did not reduce the error of
        held-out rows. Codes and reconstructions are then those of principal components.
    latent_mean_ : ndarray of shape (n_components,)
        Mean of the training set's aggregated posterior.
    latent_covariance_ : ndarray of shape (n_components, n_components)
        Covariance of the same, noise included.
    explained_variance_ratio_ : ndarray of shape (n_components,)
        Share of the training rows' variance that each component reconstructs, in the standardised
        units that the networks see. It is ``R2(k) - R2(k - 1)``, where R2(k) is the share
        reconstructed from codes whose components after the k-th are 0. The sum over the first k
        is what a truncated code reconstructs. Tables of more than 2,048 rows are measured on
        evenly spaced ones. For counts, shares are of the deviance.
    components_ : ndarray of shape (n_components, n_features)
        Loadings: mean change of the decoded row per unit of each component, over some training
        rows, in the units of `X`. With linear networks and the gaussian likelihood
        ``inverse_transform(Z)`` is ``inverse_transform(0) + Z @ components_``. For mixed frames
        there are as many features as the networks see, which is more than the frame has columns.
    noise_variance_ : ndarray of shape (n_features,)
        Learned noise variance of each feature, in its squared unit; only with
        the gaussian likelihood.
    theta_ : ndarray of shape (n_features,)
        Learned inverse dispersion of each feature, only with the negative binomial likelihoods.
        The variance of counts is ``mean + mean**2 / theta``.
    batches_ : ndarray
        Sorted labels of the experimental batches, if `fit` was given any.
    anndata_ : dict
        Names of genes, layer and keys, only after a fit by `skhebae.tl`.
    """

    fitted_: FittedAutoencoder = field(init=False)

    # Fitting

    @fit_context
    @in_plain_modes
    def fit(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        sample_weight: ArrayLike | None = None,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Fit the networks to rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 2 rows of finite values, or NaN where an entry is missing. Values are within
            [0, 1] for the bernoulli likelihood and integers >= 0 for counts. Rows of the shape
            `image_shape` are flattened. A pandas or polars frame may have categories, text,
            booleans and dates (see `likelihood`).
        y : None
            Ignored, present for pipelines.
        sample_weight : array-like of shape (n_samples,), optional
            How many rows each row stands for, finite and >= 0. A whole number has the same effect
            as that many copies of the row, and 0 the same as leaving it out. The sum counts as
            the number of rows, so scale other weights, such as those of a survey, to add up to
            it. Minibatches are drawn without regard to weights.
        batch : array-like of shape (n_samples,), optional
            Label of each row's experimental batch, all text or all numbers. (1, 1.0 and True
            are the same label, "1" is another.) The decoder sees it, so codes need not tell
            batches apart. No batch may be called "average".
        size_factor : array-like of shape (n_samples,), optional
            Exposure of each row of counts, in any unit. By default the total of the row.
        checkpoint : path-like, optional
            File for the state of training. It is written at the end of epochs, and every two
            minutes within a long one, which takes less than 5 % of the time. If the file
            exists, training resumes from it and ends with the same result as without the
            interruption. The file stays when `fit` is done.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If a parameter, `sample_weight`, `batch`, `size_factor` or `X` is not usable. The
            message names it and the cure.
        CheckpointError
            If `checkpoint` belongs to another fit: other rows, or other parameters.
        NonFiniteLossError
            If the loss becomes NaN or infinite. An earlier fit is kept.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is a number and was too small for the loss to settle.
        """
        self._fit(X, batch, size_factor, sample_weight, checkpoint=checkpoint)
        self._warn_unless_converged()
        return self

    @fit_context
    @in_plain_modes
    def partial_fit(
        self,
        X: ArrayLike | Matrix | Iterable[Any],
        y: object = None,
        *,
        sample_weight: ArrayLike | None = None,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on these rows, keeping what was learned before.

        The rows of the first call set the standardisation of the features, so they should be
        representative. A feature that is constant at first has no influence on codes until a
        call in which it varies, and that call sets its standardisation. `latent_mean_` and
        `latent_covariance_` cover the rows of all calls, with the codes that they had when they
        were seen. The mixture of `sample` covers the rows of the last call. A copy or a loaded
        model continues with the same networks but a fresh optimiser.

        A stream of tables, such as a generator or a loader, is read once, one table ahead in a
        thread. It has the same effect as one call per table, so an error leaves what was
        learned from the tables before.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 2 rows in the first call and 1 in later ones, trained in minibatches of
            `batch_size`. Or an iterable of tables that is not a sequence and has no shape. Its
            items are arrays, sparse matrices, tensors, AnnData, mappings with an "X", or pairs
            that begin with a table; empty ones are skipped.
        y : None
            Ignored, present for pipelines.
        sample_weight : array-like of shape (n_samples,), optional
            As in `fit`. The rows of all calls count by their weights. Not with a stream.
        batch : array-like of shape (n_samples,), optional
            As in `fit`. The rows of the first call must have all labels. Not with a stream.
        size_factor : array-like of shape (n_samples,), optional
            As in `fit`. Not with a stream.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, NonFiniteLossError
            As in `fit`. For a stream, a note says at which item.

        Warns
        -----
        OutOfRangeWarning
            If rows lie far outside those of the first call.
        """
        refuse_no_table(X)
        if is_stream(X):
            given = {"sample_weight": sample_weight, "batch": batch, "size_factor": size_factor}
            fit_each(X, self.partial_fit, given, alone=is_alone(self.distributed))
            return self
        # scikit-learn checks parameters in the first call only.
        self._validate_params()
        self._fit(X, batch, size_factor, sample_weight, partial=True)
        return self

    @fit_context
    @in_plain_modes
    def fit_transform(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        sample_weight: ArrayLike | None = None,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Float32Array:
        """Fit to rows and return their codes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            As in `fit`.
        y : None
            Ignored, present for pipelines.
        sample_weight, batch, size_factor : array-like of shape (n_samples,), optional
            As in `fit`.
        checkpoint : path-like, optional
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32
            The codes of all rows, the same as `transform` returns.
        """
        cls = type(self)
        if cls.fit is not BaseAutoencoder.fit or cls.transform is not BaseAutoencoder.transform:
            # A subclass that does more in one of them does it here too.
            given: dict[str, Any] = {"batch": batch, "size_factor": size_factor}
            if sample_weight is not None:  # the subclass may not know it
                given["sample_weight"] = sample_weight
            fitted = self.fit(X, checkpoint=checkpoint, **given)
            return np.asarray(fitted.transform(X, batch=batch))
        codes = self._fit(
            X, batch, size_factor, sample_weight, checkpoint=checkpoint, keep_codes=True
        )
        self._warn_unless_converged()
        assert codes is not None
        return codes

    def _fit(
        self,
        X: ArrayLike | Matrix,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        sample_weight: ArrayLike | None = None,
        *,
        partial: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        keep_codes: bool = False,
    ) -> Float32Array | None:
        """Validate rows, fit to them, and return their codes if asked to."""
        continues = self.__sklearn_is_fitted__() and (partial or self.warm_start)
        earlier = self.fitted_ if continues else None
        with self._unchanged_on_failure():
            group = find_group(self.distributed, resolve_device(self.device))
            with name_lost_process(checkpoint) if group.size > 1 else nullcontext():
                # One row more is enough, where a scale and moments are known.
                min_samples = 1 if partial and earlier is not None else 2
                table = agreed_table(
                    self,
                    X,
                    batch,
                    size_factor,
                    group,
                    earlier,
                    checkpoint,
                    min_samples,
                    sample_weight,
                )
                codes: Float32Array | None = None
                # Rows of weight 0 were left out, and have codes.
                known = isinstance(self.n_components, Integral) and sample_weight is None
                if keep_codes and known:
                    codes = np.empty((len(table), int(self.n_components)), dtype=np.float32)
                fitted = fit_autoencoder(
                    self,
                    table,
                    earlier=earlier,
                    partial=partial,
                    checkpoint=checkpoint,
                    codes=codes,
                )
                self.fitted_ = replace(fitted, feature_names=self._feature_names())
                if keep_codes and sample_weight is None and not known:
                    codes = fitted.encode(table.X, table.batch)
        if keep_codes and sample_weight is not None:
            codes = fitted.encode(self.validate_rows(X), batch)
        return codes

    def _feature_names(self) -> NDArray[Any] | None:
        """Return the names of the features, if `X` had any."""
        return getattr(self, "feature_names_in_", None)

    def _warn_unless_converged(self) -> None:
        """Warn where a number of epochs was given and was too small."""
        if self.max_iter != "auto" and not self.fitted_.converged:
            warn_caller(
                f"max_iter={self.max_iter} epochs reached and the optimisation has not converged "
                "yet. Increase max_iter, or set max_iter='auto'.",
                ConvergenceWarning,
            )

    @contextmanager
    def _unchanged_on_failure(self) -> Iterator[None]:
        """Undo everything if the block raises, Ctrl-C included."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    # Codes

    @in_plain_modes
    def validate_rows(self, X: ArrayLike | Matrix) -> Matrix:
        """Check rows as `transform` does, and return them as `fitted_` takes them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.

        Returns
        -------
        ndarray, CSR matrix or StoredTable of shape (n_samples, n_features)

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        check_is_fitted(self)
        likelihood = self.fitted_.architecture.likelihood
        return validate_table(
            self,
            X,
            likelihood,
            window_mb=self.window_mb,
            reset=False,
            min_samples=1,
            columns=self.fitted_.columns,
        )

    def transform(self, X: ArrayLike | Matrix, *, batch: ArrayLike | None = None) -> Float32Array:
        """Map rows to codes, the means of their approximate posteriors.

        Codes are deterministic and do not depend on the other rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch : array-like of shape (n_samples,), optional
            Labels of experimental batches, only needed with `encode_batch`.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32
            One code per row, as a frame if `set_output` says so.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `X` does not match the rows of `fit`.

        Warns
        -----
        OutOfRangeWarning
            If rows lie far outside those of `fit`. The warning names the features.
        """
        X = self.validate_rows(X)
        return self.fitted_.encode(X, batch)

    @in_plain_modes
    def inverse_transform(
        self,
        Z: ArrayLike,
        *,
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Any:
        """Map codes to rows, the means of p(x | z).

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.
        batch : label or array-like of shape (n_samples,), optional
            Experimental batch to decode for, one label for all rows or one per row. "average"
            is the mean over all batches of `fit`. Needed if `fit` was given batches.
        size_factor : float or array-like of shape (n_samples,), optional
            For counts, the total of each row, or its size factor in the unit that `fit` was given.
            By default the median total of the rows of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            In the units of the rows of `fit`. float64 if float32 cannot hold the spread of a
            feature because its offset is thousands of times larger. A frame with the dtypes of
            `fit` if `fit` saw a frame whose columns have families of their own.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `Z` does not have `n_components` columns or is not finite, or `batch` or
            `size_factor` is missing or not usable.
        """
        check_is_fitted(self)
        codes: Float32Array = check_array(
            as_table(Z, "Z"), dtype=np.float32, order="C", input_name="Z"
        )
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {codes.shape[1]} columns, but {type(self).__name__} was fitted with "
                f"n_components={self._n_features_out}. Pass codes as transform returns them."
            )
        return self._as_fitted(self.fitted_.decode(codes, batch, size_factor))

    @in_plain_modes
    def sample(
        self,
        n_samples: int = 1,
        latent: Literal["mixture", "gaussian", "prior"] = "mixture",
        random_state: int | np.random.RandomState | None = None,
        *,
        given: Mapping[Any, Any] | None = None,
        noise: bool | None = None,
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Any:
        """Generate rows: draw codes and decode them.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to generate.
        latent : {"mixture", "gaussian", "prior"}, default="mixture"
            Where codes come from. "mixture" is a Gaussian mixture fitted to the posteriors of at
            most 10,000 training rows, "gaussian" the Gaussian with `latent_mean_` and
            `latent_covariance_`, and "prior" is p(z). Codes with the moments of N(0, I)
            need not be Gaussian, so the mixture is the most faithful.
        random_state : int, RandomState instance or None, default=None
            Seed of this draw. None draws anew in every call.
        given : mapping, optional
            Values that all generated rows have, by column name (or by position if columns have
            no names): ``{"sex": "F", "age": 40}``. The other columns are drawn given these
            values: codes are resampled with weights p(given | z), from 100 codes per row and at
            least 10,000. Not for counts.
        noise : bool, default=None
            Whether to draw from p(x | z) instead of returning its mean. None draws for mixed
            frames only, because most likely categories are not a sample. For counts without a
            `size_factor`, exposures are drawn too, from those of `fit` and of the same batch.
        batch : label or array-like of shape (n_samples,), optional
            Experimental batch to decode for, one label for all rows or one per row. "average"
            decodes the mean over all batches of `fit`, and `noise` around it is that of one row.
            Needed if `fit` was given batches.
        size_factor : float or array-like of shape (n_samples,), optional
            For counts, the total of each row, or its size factor in the unit that `fit` was given.
            By default the median total of the rows of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            In the units of the rows of `fit`. float64 if float32 cannot hold the spread of a
            feature because its offset is thousands of times larger. A frame with the dtypes of
            `fit` if `fit` saw a frame whose columns have families of their own.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `n_samples` or `latent` is not one of the above, or `given` names a column or a
            category that `fit` did not see.

        Warns
        -----
        FewCodesWarning
            If the combination of values in `given` is so rare that rows repeat a few codes.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"n_samples={n_samples!r} must be an integer >= 1, the rows to generate."
            )
        if not isinstance(latent, str) or latent not in ("mixture", "gaussian", "prior"):
            raise ValueError(f"latent={latent!r} must be 'mixture', 'gaussian' or 'prior'.")
        rng = check_random_state(random_state)
        if noise is None:
            noise = self.fitted_.columns is not None
        rows = self.fitted_.sample(
            int(n_samples),
            latent,
            rng,
            noise=noise,
            batch=batch,
            size_factor=size_factor,
            given=given,
        )
        return self._as_fitted(rows)

    def _as_fitted(self, rows: NDArray[Any]) -> Any:
        """Return rows as a frame with the dtypes of `fit`, if it was a mixed one."""
        columns = self.fitted_.columns
        return rows if columns is None else decode_frame(rows, columns)

    @in_plain_modes
    def posterior(self, X: ArrayLike | Matrix, *, batch: ArrayLike | None = None) -> Posterior:
        """Return the approximate posterior of each row.

        For HEBAE it is ``N(mu_i, A D_i S D_i A^T)``, equation 6 of arXiv:2007.10389. S is the
        covariance of the encoder's codes of all training rows, and A is the map that standardises
        codes and turns them to their principal axes. For VAE it is ``N(mu_i, A diag sigma_i^2
        A^T)`` with a rotation A. For WAE it is a point, with a factor of zeros.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch : array-like of shape (n_samples,), optional
            Labels of experimental batches, needed with `encode_batch` only.

        Returns
        -------
        Posterior
            Named tuple of `mean` (n_samples, n_components) and
            `covariance_factor` (n_samples, n_components, n_components), F
            lower triangular with covariance ``F F^T``.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        X = self.validate_rows(X)
        return Posterior(*self.fitted_.posterior(X, batch))

    # Scores

    def score_samples(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Score rows by a likelihood bound in nats; higher is more typical.

        The score is the evidence lower bound ``E_q log p(x | z) - KL(q(z) || p(z))``. Here q is
        the Gaussian at the code of the row whose covariance follows from the decoder's local
        linearisation, ``(I + J^T W J)^-1`` with the precision I of the prior. It does not use the
        encoder's noise, so all estimators are scored in the same way, including WAE, which has
        no noise. The expectation is a deterministic cubature. It is exact, and so a true bound,
        for linear decoders with Gaussian likelihood, and an approximation otherwise. See `elbo`
        for the bound of the posterior that was trained, and `log_likelihood` for the quantity
        that both bound.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        X = self.validate_rows(X)
        return self.fitted_.score(X, batch, size_factor)

    @in_plain_modes
    def score(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        sample_weight: ArrayLike | None = None,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> float:
        """Return the mean of `score_samples`, in nats.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        y : None
            Ignored, present for model selection.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows in the mean, finite and >= 0, not all 0.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        float
            Nats per row; higher is better.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`, and if `sample_weight` is not usable.
        """
        scores = self.score_samples(X, batch=batch, size_factor=size_factor)
        if sample_weight is None:
            return float(scores.mean(dtype=np.float64))
        weight = check_sample_weight(sample_weight, len(scores))
        if not weight.any():
            raise ValueError("sample_weight is zero in every row, so there is no mean.")
        # A row of weight 0 is as good as absent, whatever its score.
        return float(np.average(scores[weight > 0.0], weights=weight[weight > 0.0]))

    def elbo(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Compute the standard evidence lower bound of each row, in nats.

        The bound is ``E_q log p(x | z) - KL(q(z | x) || p(z))`` (equation 1 of arXiv:2007.10389),
        where q is the posterior that the encoder was trained to give, as `posterior` returns it.
        The definition is the same for all estimators, so you can compare them. It is low for a
        posterior whose noise vanished (HEBAE with ``row_share=0``), and minus infinity for a point
        (WAE). `score_samples` and `log_likelihood` do not use that noise. The expectation is the
        cubature of `score_samples`. The guide says how large its error is if the decoder is
        curved and the noise wide.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        X = self.validate_rows(X)
        return self.fitted_.elbo(X, batch, size_factor)

    @in_plain_modes
    def log_likelihood(
        self,
        X: ArrayLike | Matrix,
        *,
        n_draws: int = 100,
        random_state: int | np.random.RandomState | None = 0,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Estimate ``log p(x)`` of each row by importance weights, in nats.

        The estimate is ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k)`` with ``z_k ~ q``. In
        expectation it is a lower bound of ``log p(x)`` that never falls as K = `n_draws` grows
        [1]_. The proposal q is the Laplace approximation of p(z | x), found by a few Gauss-Newton
        steps from the code of the row, so the value depends on the decoder and hardly on the
        encoder. All rows share the same draws, so the value of a row does not depend on the
        other rows.

        For counts, p(x) is the density given the exposure of the row. With a `size_factor` it
        sums to 1 over all rows. By default the exposure is the total of the row, which x
        determines. The value then compares models and rows, but is not the logarithm of a
        probability.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        n_draws : int, default=100
            Number of draws K of the latent code.
        random_state : int, RandomState instance or None, default=0
            Seed of the draws.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`, and if `n_draws` is not an integer >= 1.

        References
        ----------
        .. [1] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted
           Autoencoders", arXiv:1509.00519.
        """
        check_is_fitted(self)
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"n_draws={n_draws!r} must be an integer >= 1; 100 is a good start.")
        rng = check_random_state(random_state)
        draws = rng.standard_normal((int(n_draws), self._n_features_out)).astype(np.float32)
        X = self.validate_rows(X)
        return self.fitted_.log_likelihood(X, draws, batch, size_factor)

    # Missing entries

    @in_plain_modes
    def impute(
        self,
        X: ArrayLike | Matrix,
        *,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Any:
        """Fill in missing entries of rows, given their observed ones.

        By default missing entries get their expected values, ``E[x_mis | x_obs] = sum_k w_k
        E[x_mis | z_k]``, by the self-normalised importance sampling of MIWAE [1]_. The weights w_k
        are proportional to ``p(x_obs | z_k) p(z_k) / q(z_k)``, and the proposal q is the Laplace
        approximation of p(z | x_obs), as for `log_likelihood`.

        With `n_draws`, missing entries are drawn from p(x_mis | x_obs), and the spread of the
        draws says how certain they are. Codes are resampled with the same weights, and missing
        entries are drawn given each code. If a trial in `fit` found no use for perceptrons in
        rows with missing entries, both results are those of factor analysis, in closed form.

        Values are assumed to be missing at random: whether a value is missing must not depend on
        what it would be.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`, NaN where an entry is missing.
        n_draws : int, optional
            Number of completed copies to draw. By default, expected values are filled in.
        random_state : int, RandomState instance or None, default=0
            Seed of the draws of codes and entries.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or (n_draws, n_samples, n_features)
            The rows, with observed entries as they are. A frame gives a frame, with the dtypes of
            `fit` if columns have families of their own, and a CSR matrix gives a CSR matrix. With
            `n_draws`, frames and CSR matrices come in a list.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`, and if `n_draws` is not an integer >= 1.

        References
        ----------
        .. [1] P.-A. Mattei and J. Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
           Incomplete Data Sets", arXiv:1812.02633.
        """
        check_is_fitted(self)
        if n_draws is not None and (not isinstance(n_draws, Integral) or n_draws < 1):
            raise ValueError(
                f"n_draws={n_draws!r} must be an integer >= 1, the completed copies to draw, or "
                "None for expected values."
            )
        rng = check_random_state(random_state)
        rows = self.validate_rows(X)
        noise = opposite_pairs(rng, n_draws, self._n_features_out)
        if n_draws is None:
            filled = [self.fitted_.expected_rows(rows, noise, batch, size_factor)]
        else:
            filled = list(
                self.fitted_.drawn_rows(rows, int(n_draws), noise, rng, batch, size_factor)
            )
        columns = self.fitted_.columns
        completed = [completed_like(X, rows, values, columns) for values in filled]
        if n_draws is None:
            return completed[0]
        return np.stack(completed) if isinstance(completed[0], np.ndarray) else completed

    # Fitted attributes

    @property
    def n_iter_(self) -> int:
        """Epochs trained."""
        return len(self.history_["loss"])

    @property
    def history_(self) -> dict[str, list[float]]:
        """Losses and seconds per epoch."""
        return self.fitted_.history

    @property
    def n_components_(self) -> int:
        """Dimensions of the code."""
        return self.fitted_.n_components

    @property
    def is_linear_(self) -> bool:
        """Whether the networks stayed linear."""
        return self.fitted_.model.is_linear

    @property
    def latent_mean_(self) -> NDArray[np.float64]:
        """Mean of the training set's aggregated posterior, (n_components,)."""
        return self.fitted_.latent_mean

    @property
    def latent_covariance_(self) -> NDArray[np.float64]:
        """Covariance of the training set's aggregated posterior."""
        return self.fitted_.latent_covariance

    @property
    def explained_variance_ratio_(self) -> NDArray[np.float64]:
        """Share of the training rows' variance that each component reconstructs."""
        return self.fitted_.principal_axes.explained_variance_ratio

    @property
    def components_(self) -> NDArray[np.float64]:
        """Mean change of the decoded rows per unit of each component."""
        return self.fitted_.components

    @property
    def noise_variance_(self) -> NDArray[np.float64]:
        """Learned noise variance of each feature, with the gaussian likelihood."""
        return self._learned("noise_variance_")

    @property
    def theta_(self) -> NDArray[np.float64]:
        """Learned inverse dispersion of each feature, with negative binomial likelihoods."""
        return self._learned("theta_")

    @property
    def batches_(self) -> NDArray[Any]:
        """Sorted labels of the experimental batches, if `fit` was given any."""
        if not len(self.fitted_.batches):
            raise AttributeError("batches_ exists only where fit was given batch=.")
        return self.fitted_.batches

    @property
    def anndata_(self) -> dict[str, Any]:
        """Names of genes, layer and keys, of a fit by `skhebae.tl`."""
        if self.fitted_.annotations is None:
            raise AttributeError("anndata_ exists only after a fit by skhebae.tl.")
        return self.fitted_.annotations

    def _learned(self, name: str) -> NDArray[np.float64]:
        """Return an attribute that only some likelihoods learn."""
        try:
            return self.fitted_.learned[name]
        except KeyError:
            raise AttributeError(
                f"{name} does not exist with likelihood={self.fitted_.architecture.likelihood!r}."
            ) from None

    # Files and copies

    @in_plain_modes
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file, completely or not at all.

        The file is safetensors with JSON metadata. It is small, executes nothing when it is read,
        and loads on any machine. A `random_state` that is not an integer is saved as None, and a
        callable `learning_rate` as "linear". Functions and classes of your own (`encoder`,
        `decoder` and so on) are saved by name only, so pass them to `load` again. The state of
        `partial_fit`'s optimiser is neither saved nor pickled, so the next call starts Adam anew.

        Parameters
        ----------
        path : path-like
            An existing file is overwritten and keeps its mode, and a link keeps its target.

        Raises
        ------
        NotFittedError
            Before `fit`.
        InvalidParameterError
            If a parameter that was set after the fit is not usable.
        FileNotFoundError, IsADirectoryError, ModelFileError
            If the folder of `path` does not exist, or `path` is a folder, or a FIFO or a device.
        OSError
            If the file cannot be written, for example because the disk is full; an existing
            one is left as it was.
        """
        check_is_fitted(self)
        self._validate_params()
        params = file_parameters(self.get_params(deep=False), self.fitted_.architecture)
        self.fitted_.save(path, type(self).__name__, params, file_attributes(vars(self)))

    @classmethod
    @in_plain_modes
    def load(cls, path: str | os.PathLike[str], **factories: Any) -> Self:
        """Read an estimator written by `save`.

        Parameters
        ----------
        path : path-like
            A file written by `save`.
        **factories : callable
            Functions and classes of your own that the estimator was fitted with, by the names of
            their parameters (`encoder`, `decoder`, `likelihood` and so on). A file holds weights
            and no code.

        Returns
        -------
        estimator
            On the device that its `device` parameter names, or on the CPU if that is missing.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ModelFileError
            If the file is truncated, damaged, foreign, of a newer format or another class, or
            not a file.
        TypeError, ValueError
            If a function or class is missing or not needed.
        """
        return load_estimator(cls, path, factories)

    @in_plain_modes
    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "fitted_" in state:
            state |= state.pop("fitted_").pack()
        return state

    @in_plain_modes
    def __setstate__(self, state: dict[str, Any]) -> None:
        own, packed = split_state(state)
        super().__setstate__(own)
        if packed:
            device = torch.device("cpu")
            # A model fitted on a device that this machine lacks goes to the CPU.
            with suppress(ValueError, TypeError):
                device = resolve_device(self.device)
            fitted = FittedAutoencoder.unpack(packed, self.make_objective(), device)
            self.fitted_ = replace(fitted, feature_names=self._feature_names())
            for name in self.fitted_.learned:  # packed for readers of files
                self.__dict__.pop(name, None)

    # The rest of the contract

    def _described_model(self) -> BaseAutoencoder:
        return self

    @property
    def _n_features_out(self) -> int:
        return self.fitted_.n_components

    def __sklearn_is_fitted__(self) -> bool:
        return "fitted_" in self.__dict__

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        with suppress(TypeError):  # a likelihood that does not exist is an error of `fit`
            by_dtype = isinstance(self.likelihood, Mapping)
            family = find_likelihood(resolve_likelihood(self.likelihood, is_mixed=by_dtype))
            tags.input_tags.positive_only = family.support[0] >= 0
            tags.input_tags.allow_nan = family.accepts_missing
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
