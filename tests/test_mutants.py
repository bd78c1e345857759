"""Tests of the tests: each broken copy of the package must fail them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

ROOT = Path(__file__).parents[1]
NAMES = (
    "aggregate",
    "capacity",
    "divergences",
    "families",
    "finite_sample",
    "information",
    "likelihoods",
    "linear_path",
    "model",
    "objectives",
    "principal_codes",
    "prior",
    "tilted",
    "variational",
    "weights",
    "conformal",
    "novelty_scores",
)
TESTS = tuple(f"tests/test_{name}.py" for name in NAMES)
AGGREGATE, CAPACITY, DIVERGENCES, FAMILIES, FINITE_SAMPLE, INFORMATION, LIKELIHOODS = TESTS[:7]
LINEAR_PATH, MODEL, OBJECTIVES, PRINCIPAL_CODES, PRIOR, TILTED, VARIATIONAL, WEIGHTS = TESTS[7:15]
CONFORMAL, NOVELTY = TESTS[15:]
# One function of tests, where the others take long.
GAP = f"{VARIATIONAL}::test_parts_of_a_linear_model"
JUDGE, STARTS = (f"{LINEAR_PATH}::test_{name}" for name in ("judge", "networks_start_as_pca"))
COMPONENTS = f"{LINEAR_PATH}::test_principal_components_are_eigenvectors_of_the_covariance"
CENTRED = f"{LINEAR_PATH}::test_the_start_is_centred"
REPEATED = f"{WEIGHTS}::test_the_loss_and_its_gradients_are_those_of_repeated_rows"
BOTH_FORMS = f"{WEIGHTS}::test_both_forms_of_the_aggregate_agree_for_any_weights"
CODE_MOMENTS = f"{WEIGHTS}::test_moments_of_codes_are_those_of_repeated_rows"
WEIGHTED_COMPONENTS = f"{WEIGHTS}::test_principal_components_are_those_of_repeated_rows"
FINISHED = f"{WEIGHTS}::test_likelihoods_finish_as_on_repeated_rows"
MERGED = f"{LINEAR_PATH}::test_merged_rows_have_the_components_of_all"

# Imports take longer than most mutants live, so one process makes them, all but
# that of the package, and a fork of it runs each copy. Mutants die of few
# examples, and of the first one that fails: shrinking it would take the time of
# many mutants.
SERVER = """
import gc, json, os, sys, traceback
import hypothesis, numpy, pytest, scipy.integrate, scipy.stats, torch
import safetensors.torch, sklearn.datasets, sklearn.mixture, sklearn.model_selection
import torch.distributions, torch.fx.experimental.symbolic_shapes
from hypothesis import Phase, settings

settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=15,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
)
os.environ["HYPOTHESIS_PROFILE"] = "mutants"  # which the copy's conftest.py loads
assert "skhebae" not in sys.modules
gc.freeze()
for line in sys.stdin:
    folder, *arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.chdir(folder)
            sys.path.insert(0, folder)
            log = os.open("output.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            status = int(pytest.main(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

IMPORTS_THE_COPY = """
from pathlib import Path

import skhebae


def test_the_copy_is_imported():
    assert Path(skhebae.__file__).parents[1] == Path(__file__).parents[1]
"""


class Mutant(NamedTuple):
    """One replacement in one file, and the tests that must notice it."""

    file: str
    old: str
    new: str
    tests: str


MUTANTS = {
    "von Mises without its normaliser": Mutant(
        "likelihoods/circular.py",
        "total - log_i0(self._concentration(parameter))",
        "total",
        f"{FAMILIES}::test_densities_integrate_to_one",
    ),
    "tails of the normal distribution without digits": Mutant(
        "likelihoods/intervals.py",
        "flips = low + high > 0.0",
        "flips = low > high",
        f"{FAMILIES}::test_probabilities_of_intervals",
    ),
    "bins without their share": Mutant(
        "likelihoods/binned.py",
        "within = within - self.log_mass.gather(1, segment).T",
        "within = within + 0.0",
        f"{FAMILIES}::test_densities_integrate_to_one",
    ),
    "softmax over all columns": Mutant(
        "likelihoods/categorical.py",
        "below - (below.exp() @ self.members).log() @ self.members.T",
        "below.log_softmax(dim=-1)",
        f"{FAMILIES}::test_the_composite_is_the_sum_of_its_parts",
    ),
    "Student's t with one degree less": Mutant(
        "likelihoods/student_t.py",
        "constant - 0.5 * (nu + 1.0) * distance.log1p()",
        "constant - 0.5 * nu * distance.log1p()",
        f"{FAMILIES}::test_densities_integrate_to_one",
    ),
    "atoms hide nothing": Mutant(
        "likelihoods/quantile.py",
        "share = 1.0 - hidden.sum(dim=-1)",
        "share = 1.0",
        f"{FAMILIES}::test_information_is_that_of_draws",
    ),
    "Gaussian KL without 1/2": Mutant(
        "divergences.py",
        "return 0.5 * (trace + mean.square().sum(dim=-1)",
        "return (trace + mean.square().sum(dim=-1)",
        DIVERGENCES,
    ),
    "diagonal KL without 1/2": Mutant(
        "divergences.py",
        "return 0.5 * (mean.square() + log_var.exp()",
        "return (mean.square() + log_var.exp()",
        DIVERGENCES,
    ),
    "row KL without 1/2": Mutant(
        "divergences.py",
        "return 0.5 * (trace + mean.square().sum(dim=1)",
        "return (trace + mean.square().sum(dim=1)",
        DIVERGENCES,
    ),
    "no mean term": Mutant(
        "divergences.py", "trace + mean.square().sum(dim=-1)", "trace", DIVERGENCES
    ),
    "log det of the wrong sign": Mutant(
        "divergences.py", "mean.shape[-1] - log_det", "mean.shape[-1] + log_det", DIVERGENCES
    ),
    "row KL without its scale": Mutant(
        "divergences.py",
        "2.0 * (spread.log().sum(dim=1) + factor.diagonal().log().sum())",
        "2.0 * factor.diagonal().log().sum()",
        DIVERGENCES,
    ),
    "mean detached": Mutant(
        "divergences.py",
        "return mean, centred.T @ centred",
        "return mean.detach(), centred.T @ centred",
        DIVERGENCES,
    ),
    "covariance detached": Mutant(
        "divergences.py",
        "return mean, centred.T @ centred",
        "return mean, centred.detach().T @ centred.detach()",
        DIVERGENCES,
    ),
    "B for B - 1": Mutant(
        "divergences.py", "centred / max(len(mu) - 1, 1)", "centred / len(mu)", DIVERGENCES
    ),
    "B for B - 1 in the weight of the sample": Mutant(
        "divergences.py",
        "(n_rows - 1) * covariance) / (pseudo_rows + (n_rows - 1))",
        "n_rows * covariance) / (pseudo_rows + n_rows)",
        DIVERGENCES,
    ),
    "pseudo-rows ignored": Mutant(
        "divergences.py",
        "(pseudo_rows * identity + (n_rows",
        "(0.0 * identity + (n_rows",
        DIVERGENCES,
    ),
    "pseudo-rows of groups ignored": Mutant(
        "divergences.py",
        "(pseudo_rows * identity + scatter)",
        "(0.0 * identity + scatter)",
        DIVERGENCES,
    ),
    "noise of small groups' means counted": Mutant(
        "divergences.py", " - 0.5 * chance", "", DIVERGENCES
    ),
    "covariance in single precision": Mutant(
        "objectives/fused.py",
        "mu.detach().numpy().astype(np.float64)",
        "mu.detach().numpy()",
        OBJECTIVES,
    ),
    "biased MMD": Mutant(
        "divergences.py",
        "(gram.sum() - gram.diagonal().sum()) / max(1, n_rows * (n_rows - 1))",
        "gram.mean()",
        DIVERGENCES,
    ),
    "L transposed": Mutant(
        "objectives/aggregate.py",
        "return Aggregate(eps @ factor.T,",
        "return Aggregate(eps @ factor,",
        OBJECTIVES,
    ),
    "fused L transposed": Mutant(
        "objectives/fused.py", "eps @ narrow.T", "eps @ narrow", AGGREGATE
    ),
    "fused L detached": Mutant(
        "objectives/fused.py", "if by_noise is not None:", "if by_noise is None:", AGGREGATE
    ),
    "fused mean without its slope": Mutant(
        "objectives/fused.py", "by_mu += slope / total * mean", "pass", AGGREGATE
    ),
    "L detached": Mutant(
        "objectives/aggregate.py",
        "return Aggregate(eps @ factor.T,",
        "return Aggregate(eps @ factor.detach().T,",
        OBJECTIVES,
    ),
    "moments of detached codes": Mutant(
        "objectives/aggregate.py",
        "minibatch_moments(in_double(mu))",
        "minibatch_moments(in_double(mu.detach()))",
        OBJECTIVES,
    ),
    "diag noise with variances for deviations": Mutant(
        "objectives/aggregate.py",
        "covariance.diagonal().sqrt().diag() if",
        "covariance.diagonal().diag() if",
        OBJECTIVES,
    ),
    "row share without its weight": Mutant(
        "objectives/hebae.py",
        "row_penalty=share * row_divergence",
        "row_penalty=row_divergence",
        OBJECTIVES,
    ),
    "standard bound without its divergence": Mutant(
        "objectives/base.py",
        "return -mean(self.reconstruction.detach() + self.row_divergence.detach())",
        "return -(self.reconstruction.detach() - self.row_divergence.detach()).mean()",
        OBJECTIVES,
    ),
    "aggregate at full weight beside the rows": Mutant(
        "objectives/hebae.py",
        "minibatch_penalty=(1.0 - share) * divergence",
        "minibatch_penalty=divergence",
        OBJECTIVES,
    ),
    "row KL of the full covariance beside diag noise": Mutant(
        "objectives/aggregate.py",
        "return Aggregate(eps @ factor.T, divergence, factor)",
        "return Aggregate(eps @ factor.T, divergence, root.to(mu.dtype))",
        OBJECTIVES,
    ),
    "VAE noise with variances for deviations": Mutant(
        "objectives/vae.py",
        "z = mu + (0.5 * log_var).exp() * noise",
        "z = mu + log_var.exp() * noise",
        OBJECTIVES,
    ),
    "c(B, d) off by one degree of freedom": Mutant(
        "finite_sample.py",
        "n_rows - np.arange(1, n_components + 1)",
        "n_rows - np.arange(n_components)",
        FINITE_SAMPLE,
    ),
    "expected penalty off by one degree of freedom": Mutant(
        "finite_sample.py", "degrees = n_rows - 1\n", "degrees = n_rows\n", FINITE_SAMPLE
    ),
    "expected penalty whatever the row share": Mutant(
        "objectives/hebae.py",
        "own, nu = 1.0 - self.row_share,",
        "own, nu = 1.0,",
        OBJECTIVES,
    ),
    "cubature of the wrong radius": Mutant(
        "posterior.py",
        "n_components**0.5 * factor.transpose(1, 2)",
        "factor.transpose(1, 2)",
        MODEL,
    ),
    "importance weights without the proposal's width": Mutant(
        "posterior.py", "log_kernel(z)) + log_det + constant", "log_kernel(z)) + constant", MODEL
    ),
    "importance weights without the prior": Mutant(
        "posterior.py",
        "(0.5 * draw.square().sum() + model.prior.log_kernel(z))",
        "0.5 * draw.square().sum()",
        MODEL,
    ),
    "importance weights without the prior's constant": Mutant(
        "posterior.py", " - model.prior.log_normaliser", "", MODEL
    ),
    "sum of importance weights for their mean": Mutant(
        "posterior.py", "return total - math.log(len(noise))", "return total", MODEL
    ),
    "missing noise of the wrong share": Mutant(
        "posterior.py", "of_code / row_weight", "of_code", MODEL
    ),
    "p-values without the row itself": Mutant(
        "conformal.py", "(1.0 + at_least", "(0.0 + at_least", CONFORMAL
    ),
    "ties that do not count": Mutant("conformal.py", 'side="left"', 'side="right"', CONFORMAL),
    "levels with the variance of their logarithms": Mutant(
        "likelihoods/categorical.py", " * -torch.expm1(parameter)", "", NOVELTY
    ),
    "draws without the noise of the decoder": Mutant(
        "novelty.py", "squares + model.likelihood.variance(parameter)", "squares", NOVELTY
    ),
    "mode of the likelihood alone": Mutant(
        "posterior.py", " + prior_weight * prior.gradient(z)", "", MODEL
    ),
    "missing entries in the precision": Mutant(
        "posterior.py", "weight = weight * at.mask", "pass", MODEL
    ),
    "missing entries in the slope": Mutant(
        "posterior.py",
        "likelihood.log_prob(x, leaf, minibatch.mask)",
        "likelihood.log_prob(x, leaf)",
        MODEL,
    ),
    "missing entries in the density of a row": Mutant(
        "model.py",
        "log_prob(minibatch.x, parameter, minibatch.mask)",
        "log_prob(minibatch.x, parameter)",
        MODEL,
    ),
    "missing entries in the sum of entries": Mutant(
        "likelihoods/base.py",
        "(entries if mask is None else entries.where(mask, 0.0))",
        "entries",
        LIKELIHOODS,
    ),
    "entries in the unit of the networks": Mutant(
        "likelihoods/gaussian.py",
        "log_unit = math.log(2.0 * math.pi) + 2.0 * log_scale",
        "log_unit = math.log(2.0 * math.pi) + 0.0 * log_scale",
        LIKELIHOODS,
    ),
    "zero inflation without its other zeros": Mutant(
        "likelihoods/count_densities.py",
        "zeros.where(x == 0, 0.0).sum(dim=1) + functional.logsigmoid(-zi_logits).sum()",
        "zeros.where(x == 0, 0.0).sum(dim=1)",
        LIKELIHOODS,
    ),
    "smallest eigenvalue first": Mutant(
        "fitted/axes.py", "vectors = vectors[:, ::-1]", "vectors = vectors[:, :]", PRINCIPAL_CODES
    ),
    "signs of chance": Mutant(
        "fitted/axes.py",
        "np.where(largest < 0.0, -1.0, 1.0)",
        "np.where(largest < 0.0, 1.0, 1.0)",
        PRINCIPAL_CODES,
    ),
    "chain rule without its first factor": Mutant(
        "likelihoods/jacobians.py", "(pulled * column).sum()", "(u * column).sum()", PRINCIPAL_CODES
    ),
    "scale where there is variance": Mutant(
        "fitted/axes.py", "information / (1.0 + information)", "information", PRINCIPAL_CODES
    ),
    "scale of information for that of distances": Mutant(
        "fitted/axes.py",
        "squares = distances if whiten is False",
        "squares = information if whiten is False",
        PRINCIPAL_CODES,
    ),
    "codes multiplied by their scale on the way back": Mutant(
        "fitted/axes.py",
        "(self.rotation / self.scale)",
        "(self.rotation * self.scale)",
        PRINCIPAL_CODES,
    ),
    "geometry through the map of codes": Mutant(
        "fitted/axes.py",
        "return self.through(code_map.inverse.",
        "return self.through(code_map.matrix.",
        PRINCIPAL_CODES,
    ),
    "perceptrons for any gain": Mutant(
        "fitted/gate.py", "STANDARD_ERRORS * error", "0.0 * error", JUDGE
    ),
    "perceptrons for a small gain": Mutant(
        "fitted/gate.py", "SMALLEST_GAIN * at_first", "0.0 * at_first", JUDGE
    ),
    "perceptrons for any loss": Mutant(
        "fitted/gate.py", "gain = before - after", "gain = after - before", JUDGE
    ),
    "perceptrons where the error is none": Mutant(
        "fitted/gate.py",
        "if not mean > max(",
        "if mean <= max(",
        JUDGE,
    ),
    "long training for small gains": Mutant(
        "fitted/gate.py",
        "return Verdict.FULL if at_last < LARGE_GAIN * at_first else Verdict.BRIEF",
        "return Verdict.BRIEF if at_last < LARGE_GAIN * at_first else Verdict.FULL",
        JUDGE,
    ),
    "components of rows that are not centred": Mutant(
        "networks.py",
        "self.heads.bias[: self.n_components] = -weight @ centre",
        "pass",
        CENTRED,
    ),
    "components of another mean": Mutant(
        "fitted/linear_start.py", "np.asarray(pca.mean_,", "0.0 * np.asarray(pca.mean_,", COMPONENTS
    ),
    "variances for deviations of components": Mutant(
        "fitted/linear_start.py", "np.sqrt(variances.clip(min=0.0))", "variances", COMPONENTS
    ),
    "codes that are not whitened at the start": Mutant(
        "fitted/linear_start.py",
        "found.directions / deviations[:, None]",
        "found.directions",
        STARTS,
    ),
    "decoder that does not undo the encoder at the start": Mutant(
        "fitted/linear_start.py",
        "decode = found.directions.T * deviations",
        "decode = found.directions.T",
        STARTS,
    ),
    "means of processes left out of the scatter": Mutant(
        "fitted/linear_start.py", "np.concatenate([between, *(", "np.concatenate([*(", MERGED
    ),
    "as many rows as the triangle has": Mutant(
        "fitted/linear_start.py",
        "rows *= ((len(rows) - 1.0) / max(1.0, counts.sum() - 1.0)) ** 0.5",
        "pass",
        MERGED,
    ),
    "log-density of the prior without its constant": Mutant(
        "prior.py",
        "return self.log_kernel(z) - self.log_normaliser",
        "return self.log_kernel(z)",
        PRIOR,
    ),
    "gradient of the prior of the wrong sign": Mutant(
        "prior.py", "return -z\n", "return z\n", PRIOR
    ),
    "diagonal KL of any prior with variances for deviations": Mutant(
        "prior.py",
        "(0.5 * log_var).exp().diag_embed()",
        "log_var.exp().diag_embed()",
        PRIOR,
    ),
    "row KL of any prior with its scale on the wrong side": Mutant(
        "prior.py", "spread[:, :, None] * factor", "spread[:, None, :] * factor", PRIOR
    ),
    "log-partition of another dimension": Mutant(
        "tilted.py", "(half - 1.0) * math.log(2.0)", "half * math.log(2.0)", TILTED
    ),
    "first trapezoid counted whole": Mutant(
        "tilted.py", "torch.where(u == 0.0, 0.5 * weight, weight)", "weight", TILTED
    ),
    "half of what is beside the diagonal": Mutant(
        "tilted.py", "slope - 4.0 * t", "slope - 2.0 * t", TILTED
    ),
    "lengths near 0 by another power": Mutant(
        "tilted.py", "log_ndtr(at[0])) / n_components)", "log_ndtr(at[0])))", TILTED
    ),
    "tilted precision that is not positive": Mutant(
        "tilted_prior.py", ".clamp_min(self.deviation**-2)", "", TILTED
    ),
    "tilted bound by the quadratic form": Mutant(
        "objectives/tilted.py",
        "row_divergence=prior.unit_kl(mu.detach())",
        "row_divergence=0.5 * (length - prior.best_length).square()",
        TILTED,
    ),
    "linear start of the size of N(0, I)": Mutant(
        "fitted/linear_start.py",
        "found.deviations / model.prior.deviation",
        "found.deviations",
        TILTED,
    ),
    "sum of posteriors for their mean": Mutant(
        "information.py", "return total - math.log(len(mean))", "return total", INFORMATION
    ),
    "mutual information of the wrong sign": Mutant(
        "information.py",
        "Divergences(of_row - of_all, of_all - of_prior)",
        "Divergences(of_all - of_row, of_all - of_prior)",
        INFORMATION,
    ),
    "MMD test across both ways": Mutant(
        "information.py", "- 2.0 * across / n_rows**2", "- across / n_rows**2", INFORMATION
    ),
    "moments of as many rows as have weights": Mutant(
        "divergences.py",
        "return mean, scatter / (total - 1.0).clamp_min(1.0)",
        "return mean, scatter / max(len(mu) - 1, 1)",
        REPEATED,
    ),
    "copies of a code that are no pair": Mutant(
        "divergences.py",
        " - weight @ gram.diagonal()",
        " - weight.square() @ gram.diagonal()",
        REPEATED,
    ),
    "sum of weights for their mean": Mutant(
        "data/minibatch.py", " * (self.total_rows() / self.total_weight())", "", REPEATED
    ),
    "constant of rows for that of weights": Mutant(
        "training/step.py",
        "size = minibatch.total_weight(),",
        "size = minibatch.total_rows(),",
        REPEATED,
    ),
    "fused gradient without weights": Mutant(
        "objectives/fused.py", "by_mu = counted[0] * by_mu +", "by_mu = by_mu +", BOTH_FORMS
    ),
    "codes' covariance of the whole weight": Mutant(
        "fitted/codes.py", "@ centred / degrees(total)", "@ centred / total", CODE_MOMENTS
    ),
    "components without weights": Mutant(
        "fitted/linear_start.py",
        "np.sqrt(weight)[:, None] * (inputs - mean)",
        "inputs - mean",
        WEIGHTED_COMPONENTS,
    ),
    "sums of decoded rows without weights": Mutant(
        "likelihoods/base.py",
        "torch.tensordot(self.weight.to(values), values, dims=1)",
        "values.sum(dim=0)",
        FINISHED,
    ),
    "radii of the wrong Gaussian": Mutant(
        "quadrature.py",
        "radii = np.sqrt(2.0 * nodes)",
        "radii = np.sqrt(nodes)",
        f"{VARIATIONAL}::test_each_block_integrates_polynomials",
    ),
    "importance weights without the density of draws": Mutant(
        "variational/gap.py", "joint + volume - float(density)", "joint + volume", GAP
    ),
    "bound without a part of the entropy": Mutant(
        "variational/gap.py", "math.log(2.0 * math.pi * math.e)", "math.log(2.0 * math.pi)", GAP
    ),
    "scales that weigh the entropy by half": Mutant(
        "variational/families.py", "slope = 1.0 + scale", "slope = 0.5 + scale", GAP
    ),
    "cost of independence without the determinant": Mutant(
        "variational/gap.py",
        "0.5 * (diagonal - torch.linalg.slogdet(precision).logabsdet)",
        "0.5 * diagonal",
        f"{VARIATIONAL}::test_independence_loss_is_the_least_divergence_of_diagonal_gaussians",
    ),
    "distance to the capacity of one process": Mutant(
        "objectives/capacity.py",
        "total / n_processes - self",
        "penalty.detach() - self",
        f"{CAPACITY}::test_processes_share_one_mean",
    ),
    "gradient of the whole distance": Mutant(
        "objectives/capacity.py",
        "+ slope * (penalty - penalty.detach())",
        "+ (penalty - penalty.detach())",
        f"{CAPACITY}::test_penalty_has_the_gradient_of_the_distance",
    ),
    "divergence of rows with noise": Mutant(
        "objectives/capacity.py",
        "clean = minibatch.replace(input_noise=None, input_dropout=None)",
        "clean = minibatch",
        f"{CAPACITY}::test_noise_of_training_does_not_count",
    ),
    "stopping while the capacity moves": Mutant(
        "training/loop.py",
        "if epoch < settled:",
        "if False:",
        f"{CAPACITY}::test_training_does_not_stop_while_the_target_moves",
    ),
    "reported penalty uncorrected": Mutant(
        "training/step.py",
        "penalty = terms.penalty(minibatch.mean) - reference",
        "penalty = terms.penalty(minibatch.mean)",
        FINITE_SAMPLE,
    ),
}


@pytest.fixture(scope="module")
def run_tests(tmp_path_factory):
    """Run pytest in a copy and return its exit status."""
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    folder = tmp_path_factory.mktemp("server")
    # Whatever plugins are installed would be imported once a mutant.
    alone = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env = {**os.environ, **alone, "SCIPY_ARRAY_API": "1"}
    with subprocess.Popen(command, cwd=folder, env=env, **pipes) as server:

        def run(copy, *tests):
            arguments = ["-x", "-q", "-p", "no:cacheprovider", *tests]
            server.stdin.write(json.dumps([str(copy), *arguments]) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield run


@pytest.fixture
def copy(tmp_path):
    """The package and the tests that are tested here."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "skhebae", tmp_path / "skhebae", ignore=ignored)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py", *TESTS):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_an_unchanged_copy_passes(copy, run_tests):
    (copy / "tests" / "test_copy.py").write_text(IMPORTS_THE_COPY)
    status = run_tests(copy, "tests")
    assert status == pytest.ExitCode.OK, (copy / "output.txt").read_text()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_copy_fails(name, copy, run_tests):
    mutant = MUTANTS[name]
    path = copy / "skhebae" / mutant.file
    source = path.read_text()
    # Otherwise the code has moved on, and this mutant with it.
    assert source.count(mutant.old) == 1
    path.write_text(source.replace(mutant.old, mutant.new))
    slow_too = ("-m", "") if "::" in mutant.tests else ()
    status = run_tests(copy, *slow_too, mutant.tests)
    # A failed test, not a module that cannot be imported.
    assert status == pytest.ExitCode.TESTS_FAILED, (copy / "output.txt").read_text()
