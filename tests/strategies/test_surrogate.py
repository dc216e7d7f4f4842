"""What ``surrogate`` predicts with and maximises, against closed forms, numerical integrals and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landscapes import Landscape, Small, context, run, score
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.stats import norm

from nas_meta.core.objectives import hypervolume
from nas_meta.space.encoding import encode
from strategies.surrogate.cost_process import CostProcess
from strategies.surrogate.ensemble import Ensemble
from strategies.surrogate.expected_improvement import expected_improvement
from strategies.surrogate.gaussian_process import (
    PRIOR_MEAN,
    ROWS,
    GaussianProcess,
    Hyperparameters,
    clip_low,
    informative_rows,
    negative_log_posterior,
)
from strategies.surrogate.hypervolume_improvement import expected_hypervolume_improvement, free_boxes
from strategies.surrogate.surrogate import Surrogate

coordinates = st.floats(0, 1, allow_nan=False)
BOTH = ("accuracy", "flops")


def landscape_rows(count, seed=0):
    """The encodings of random architectures and their scores."""
    rng, space = np.random.default_rng(seed), Landscape()
    architectures = [space.sample(rng) for _ in range(count)]
    return encode(space, architectures), np.array([score(a) for a in architectures])


@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_a_process_of_two_results_is_that_computed_by_hand(noise):
    process = GaussianProcess(np.array([[0.0], [1.0]]), np.array([-1.0, 1.0]), Hyperparameters(1.0, 0.0, 1.0, noise))
    mean, deviation = process.predict(np.array([[1.0], [0.5]]))
    assert mean == pytest.approx([2 / (2 + noise), 0], abs=1e-5)
    assert deviation**2 == pytest.approx([1 - 2 / (2 + noise), 0], abs=1e-5)


def test_a_process_predicts_what_scikit_learn_predicts():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    (rows, values), (new, _) = landscape_rows(30), landscape_rows(20, seed=1)
    h = Hyperparameters(0.7, 0.4, 0.8, 0.05)
    mean, deviation = GaussianProcess(rows, values, h).predict(new)
    centre = rows.mean(0)
    squares = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    distance = squares[~np.eye(30, dtype=bool)].mean()
    linear = ConstantKernel(h.linear / ((rows - centre) ** 2).sum(1).mean()) * DotProduct(0.0, "fixed")
    smooth = ConstantKernel(h.smooth) * RBF(np.sqrt(h.length * distance))
    other = GaussianProcessRegressor(linear + smooth + WhiteKernel(h.noise), alpha=1e-6 * 1.1, optimizer=None)
    other.fit(rows - centre, (values - values.mean()) / values.std())
    expected, spread = other.predict(new - centre, return_std=True)
    assert mean == pytest.approx(values.mean() + values.std() * expected, rel=1e-8)
    # scikit-learn's deviation includes the noise of a new result.
    assert deviation**2 == pytest.approx(values.var() * (spread**2 - h.noise), rel=1e-6)


def test_the_gradient_of_the_posterior_of_hyperparameters_is_that_of_finite_differences():
    rows, values = landscape_rows(12)
    products = (rows - rows.mean(0)) @ (rows - rows.mean(0)).T
    distances = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    arguments = products / products.diagonal().mean(), distances / distances.mean(), values - values.mean()
    at = PRIOR_MEAN + np.array([0.3, -0.5, 0.2, 1.0])
    numeric = approx_fprime(at, lambda x: negative_log_posterior(x, *arguments)[0], 1e-6)
    assert negative_log_posterior(at, *arguments)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-4)


def test_a_process_ranks_what_it_never_saw_and_knows_what_it_knows():
    (rows, values), (new, truth) = landscape_rows(60), landscape_rows(200, seed=1)
    process = GaussianProcess(rows, values)
    mean, deviation = process.predict(new)
    assert np.corrcoef(mean, truth)[0, 1] > 0.7
    assert process.predict(rows)[1].mean() < 0.7 * deviation.mean()


def test_noise_is_told_from_differences_of_architectures():
    rng, space = np.random.default_rng(0), Landscape()
    parents = [space.sample(rng) for _ in range(50)]
    # Only results of neighbours can tell noise from a function that changes quickly.
    architectures = [*parents, *(space.mutate(parent, rng, tries=1) or parent for parent in parents)]
    rows, values = encode(space, architectures), np.array([score(a) for a in architectures])
    noisy = values + rng.normal(0, values.std(), len(values))
    assert GaussianProcess(rows, noisy).hyperparameters.noise > 0.1
    assert GaussianProcess(rows, values).hyperparameters.noise < 0.05


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [1e9, 1e9 + 1, 1e9]])
def test_a_process_of_equal_or_few_results_predicts_finite_values(values):
    rows = landscape_rows(len(values))[0]
    mean, deviation = GaussianProcess(rows, np.array(values)).predict(landscape_rows(5, seed=1)[0])
    assert np.isfinite(mean).all() and np.isfinite(deviation).all()
    if len(set(values)) == 1:
        assert mean == pytest.approx(np.full(5, values[0]), rel=1e-6)


def test_pending_proposals_leave_means_as_they_are_and_lower_deviations():
    (rows, values), (new, _) = landscape_rows(20), landscape_rows(6, seed=1)
    process = GaussianProcess(rows, values)
    believer = process.believing(new[:2])
    mean, deviation = process.predict(new)
    assert believer.predict(new)[0] == pytest.approx(mean, abs=2e-2)
    assert (believer.predict(new)[1] <= deviation + 1e-9).all()
    assert (believer.predict(new[:2])[1] < 0.5 * deviation[:2]).all()
    assert process.believing(new[:0]) is process


def test_a_process_of_many_results_uses_the_best_and_a_spread_of_the_others():
    rows, values = landscape_rows(1200)
    process = GaussianProcess(rows, values)
    assert np.corrcoef(process.predict(rows)[0], values)[0, 1] > 0.9
    used = informative_rows(values, ROWS)
    assert len(used) == ROWS and len(set(used)) == ROWS
    assert set(np.argsort(-values, kind="stable")[: ROWS // 2]) <= set(used)
    assert informative_rows(np.array([5, 1, 4, 2, 3, 0]), 4).tolist() == [0, 1, 2, 5]


def test_very_bad_results_are_raised_to_below_the_median():
    assert clip_low(np.array([0.0, 7, 8, 9, 10])) == pytest.approx([8 - 1.5 * (5 / 3) ** 0.5, 7, 8, 9, 10])
    assert clip_low(np.array([-1.0, 3, 3])).tolist() == [-1, 3, 3], "no spread, nothing to measure by"


@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(-3, 3))
@settings(max_examples=40)
def test_the_expected_improvement_is_its_integral(mean, deviation, best):
    # The integrand is zero below the best value and negligible beyond ten deviations.
    low, high = max(best, mean - 10 * deviation), max(best, mean + 10 * deviation)
    integral = quad(lambda y: (y - best) * norm.pdf(y, mean, deviation), low, high, epsabs=1e-10)[0]
    assert expected_improvement(mean, deviation, best) == pytest.approx(integral, abs=1e-6)


def test_the_expected_improvement_without_uncertainty_is_the_difference():
    assert expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0).tolist() == [0, 1]
    assert expected_improvement(0.0, 1.0, 0.0) == pytest.approx(norm.pdf(0))


def test_free_space_above_two_rows_is_three_boxes():
    lows, highs = free_boxes(np.array([[1.0, 2.0], [2.0, 1.0]]), np.zeros(2))
    boxes = sorted(zip(map(tuple, lows.tolist()), map(tuple, highs.tolist()), strict=True))
    assert boxes == [((0, 2), (np.inf, np.inf)), ((1, 1), (np.inf, 2)), ((2, 0), (np.inf, 1))]


def test_the_hypervolume_improvement_over_one_row_is_that_computed_by_hand():
    front, reference = np.array([[1.0, 1.0]]), np.zeros(2)
    # Two boxes: above the row in the second objective, and beside it in the first.
    known = expected_hypervolume_improvement(np.array([[2.0, 2.0], [0.5, 0.5]]), np.zeros((2, 2)), front, reference)
    assert known.tolist() == [3, 0]
    mean, deviation = np.array([[0.8, 0.3]]), np.array([[0.5, 0.7]])

    def improvement(objective, best):
        return expected_improvement(mean[0, objective], deviation[0, objective], best)

    by_hand = improvement(0, 0) * improvement(1, 1) + improvement(0, 1) * (improvement(1, 0) - improvement(1, 1))
    assert expected_hypervolume_improvement(mean, deviation, front, reference) == pytest.approx([by_hand])


@given(st.integers(2, 4).flatmap(lambda m: st.lists(st.tuples(*[coordinates] * m), min_size=2, max_size=7)))
@settings(max_examples=60)
def test_the_hypervolume_improvement_of_known_values_is_the_difference_of_hypervolumes(points):
    points = np.array(points)
    front, new, reference = points[:-1], points[-1:], np.zeros(points.shape[1])
    gain = expected_hypervolume_improvement(new, np.zeros_like(new), front, reference)[0]
    assert gain >= 0
    assert gain == pytest.approx(hypervolume(points, reference) - hypervolume(front, reference), abs=1e-9)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=5), st.tuples(*[coordinates] * 4))
@settings(max_examples=15)
def test_the_hypervolume_improvement_is_its_mean_over_draws(front, candidate):
    front, reference = np.array(front), np.zeros(2)
    mean, deviation = np.array([candidate[:2]]), np.array([candidate[2:]])
    draws = np.random.default_rng(0).normal(mean, deviation, (20_000, 2))
    gains = expected_hypervolume_improvement(draws, np.zeros_like(draws), front, reference)
    exact = expected_hypervolume_improvement(mean, deviation, front, reference)[0]
    assert exact >= 0
    # The second term is for improvements so rare that no draw has one, whose spread is then unknown.
    assert abs(gains.mean() - exact) <= 5 * gains.std() / len(draws) ** 0.5 + 5 / len(draws)


def test_a_cost_that_is_a_product_is_predicted_better_than_by_an_ensemble():
    rng, space = np.random.default_rng(0), Landscape()
    seen, unseen = ([space.sample(rng) for _ in range(n)] for n in (40, 100))

    def cost(architecture):
        return (1 + architecture["c0"]) ** 2 * (5 + sum(architecture.values.values()))

    values, truth = (-np.array([cost(a) for a in part], dtype=float) for part in (seen, unseen))
    process, ensemble = CostProcess(encode(space, seen), values), Ensemble(encode(space, seen), values, seed=0)
    mean, deviation = process.predict(encode(space, unseen))
    assert (mean < 0).all() and (deviation == 0).all()
    assert np.abs(mean / truth - 1).mean() < 0.1
    assert np.abs(mean - truth).mean() < 0.5 * np.abs(ensemble.predict(encode(space, unseen))[0] - truth).mean()


@pytest.mark.parametrize("objectives", [("accuracy",), BOTH])
@pytest.mark.parametrize("value", [0.5, None])
def test_a_search_without_differences_or_without_results_continues(objectives, value):
    values = None if value is None else (value, -1.0)[: len(objectives)]
    done = run(Surrogate(context(trials=30, objectives=objectives)), 30, lambda a: values, in_flight=3)
    assert len({a.id for a, _ in done}) == 30


def test_the_same_seed_and_history_give_the_same_front():
    def values(architecture):
        return score(architecture), -1.0 - sum(architecture.values.values())

    one, two = (run(Surrogate(context(trials=40, objectives=BOTH)), 40, values, in_flight=4) for _ in range(2))
    assert one == two


def test_three_objectives_of_a_small_space_are_searched_to_its_end():
    def values(architecture):
        total = float(sum(architecture.values.values()))
        return total, -total - 1, -1.0 - architecture["a"]

    strategy = Surrogate(context(Small(), 20, objectives=("accuracy", "flops", "latency")))
    assert len(run(strategy, 20, values, in_flight=2)) == 5


def test_a_withdrawn_proposal_is_no_longer_pending():
    strategy = Surrogate(context(trials=40))
    run(strategy, 12)
    first = strategy.ask()
    strategy.withdraw(first)
    assert strategy._pending == {}


def test_proposals_in_flight_differ_in_more_than_one_choice_from_each_other_on_average():
    strategy = Surrogate(context(trials=100, workers=8))
    run(strategy, 40)
    proposals = [strategy.ask() for _ in range(8)]
    differences = [sum(a[n] != b[n] for n in a.values) for i, a in enumerate(proposals) for b in proposals[:i]]
    assert np.mean(differences) > 1.5


def test_the_best_by_the_first_objective_is_found_beside_a_second_one():
    """The accurate end of a front adds little hypervolume, but it has the winner."""

    def values(architecture):
        return score(architecture), -float(np.exp(0.6 * score(architecture)))

    best = [
        max(value[0] for _, value in run(Surrogate(context(trials=80, seed=seed, objectives=BOTH)), 80, values))
        for seed in range(4)
    ]
    assert np.mean(best) > 12  # of 14.5; 9.5 if every proposal is for the hypervolume
