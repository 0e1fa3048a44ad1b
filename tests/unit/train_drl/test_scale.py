import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canids_shared.errors import CanidsError
from canids_train_drl.environment.scale import HALF, QuantileScale

finite = st.floats(-1e6, 1e6, width=32)


@given(st.lists(finite, min_size=1, max_size=200), st.lists(finite, min_size=2, max_size=20, unique=True))
def test_scale_is_monotone_and_bounded(quiet: list[float], raw: list[float]) -> None:
    score = QuantileScale.fit(np.array(quiet)).score(np.sort(np.array(raw)))
    assert (np.diff(score) >= 0).all()
    assert score.min() >= 0
    assert score.max() <= 1


def test_known_quantiles_have_their_surprise() -> None:
    scale = QuantileScale.fit(np.arange(1001.0))
    np.testing.assert_allclose(scale.surprise(np.array([500, 900, 990, 1000.0])), [np.log10(2), 1, 2, np.log10(1002)])
    assert scale.score(np.array([HALF]))[0] < 0.5


def test_ranking_goes_on_beyond_everything_seen() -> None:
    scale = QuantileScale.fit(np.random.default_rng(0).normal(size=500))
    far = np.array([-30, -10, 5, 10, 50, 100, 1000], dtype=np.float32)
    assert (np.diff(scale.score(far)) > 0).all()


@pytest.mark.parametrize("quiet", [[3.0], [0.0] * 100, [1.0, 1.0, 1.0, 2.0]])
def test_constants_and_few_windows(quiet: list[float]) -> None:
    scale = QuantileScale.fit(np.array(quiet))
    score = scale.score(np.array([quiet[0], quiet[0] + 1, quiet[0] + 100]))
    assert np.isfinite(score).all()
    assert score[0] < score[1] < score[2]


@pytest.mark.parametrize("quiet", [[], [1.0, np.nan], [np.inf, 0.0]])
def test_unusable_scores_are_refused(quiet: list[float]) -> None:
    with pytest.raises(CanidsError, match="attack-free calibrate windows with finite scores"):
        QuantileScale.fit(np.array(quiet))
