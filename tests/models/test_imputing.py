import numpy as np
import pytest
import torch

from koser.models.imputing import ImputingHead, ImputingHeadOptions


def observations(seed=0, n=60, n_values=6):
    """Values, some of them undefined; and which [shape=(n, 2, n_values)]."""
    rng = np.random.default_rng(seed)
    values = rng.normal(
        rng.uniform(-5, 50, n_values), rng.uniform(0.01, 20, n_values), (n, n_values)
    )
    is_defined = rng.random((n, n_values)) < 0.7
    return np.stack([np.where(is_defined, values, 0.0), is_defined], axis=1).astype(np.float32)


def fitted(arrays, **options):
    head = ImputingHead(arrays.shape[2], 3, ImputingHeadOptions(**options))
    head.fit_scale(arrays)
    return head


def test_defined_values_are_standardised_by_the_defined_ones():
    arrays = observations()
    known = np.where(arrays[:, 1] > 0, arrays[:, 0].astype(np.float64), np.nan)
    expected = (known - np.nanmean(known, axis=0)) / np.nanstd(known, axis=0)
    found = fitted(arrays).standardise(torch.from_numpy(arrays)).numpy()
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=1e-3)


@pytest.mark.parametrize("hidden", [0, 4])
def test_an_undefined_value_is_no_evidence(hidden):
    """It may hold anything; and it counts as the train part's mean."""
    arrays = observations()
    head = fitted(arrays, hidden=hidden).eval()
    torch.nn.init.normal_(head.classifier.maps)
    garbage = arrays.copy()
    garbage[:, 0][arrays[:, 1] == 0] = 1e9
    means = arrays.copy()
    means[:, 0] = np.where(arrays[:, 1] > 0, arrays[:, 0], head.mean.numpy())
    means[:, 1] = 1.0
    plain, other, filled = (head(torch.from_numpy(each)) for each in (arrays, garbage, means))
    assert torch.equal(plain, other)
    torch.testing.assert_close(plain, filled)


def test_what_never_varies_or_is_never_defined_in_training_is_ignored():
    arrays = observations()
    arrays[:, :, 1] = [7.0, 1.0]
    arrays[:, :, 2] = 0.0
    head = fitted(arrays)
    torch.nn.init.normal_(head.classifier.maps)
    changed = arrays.copy()
    changed[:, :, 1] = [-3e4, 1.0]
    changed[:, :, 2] = [12.0, 1.0]
    assert torch.equal(head(torch.from_numpy(changed)), head(torch.from_numpy(arrays)))


def test_errors_of_measurement_are_cut():
    arrays = observations()
    arrays[:, 1] = 1.0
    head = fitted(arrays)
    arrays[0, 0] = 1e8
    arrays[1, 0] = -1e8
    found = head.standardise(torch.from_numpy(arrays)).numpy()
    assert (found[0] == 5).all()
    assert (found[1] == -5).all()


def test_the_penalty_is_per_utterance_of_the_train_part():
    head = fitted(observations(n=50), ridge=10.0)
    with torch.no_grad():
        head.classifier.maps.fill_(1.0)
    assert head.penalty().item() == pytest.approx(0.5 * 10.0 / 50 * 6 * 3)
