"""The Fréchet distance against scipy's matrix root, and statistics in files."""

import re

import numpy as np
import pytest
import scipy.linalg

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import frechet
from janus_jax.eval.frechet import Moments, Statistics, frechet_distance


def gathered(x, batch: int = 37, name: str = "x") -> Statistics:
    moments = Moments(name)
    for start in range(0, len(x), batch):
        moments.add(x[start : start + batch])
    return moments.statistics()


def by_root(a: Statistics, b: Statistics) -> float:
    """As pytorch-fid and clean-fid take it."""
    root = scipy.linalg.sqrtm(a.sigma @ b.sigma).real
    apart = a.mu - b.mu
    return apart @ apart + np.trace(a.sigma) + np.trace(b.sigma) - 2 * np.trace(root)


def features(n: int, dims: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 3 + np.abs(rng.standard_normal((n, dims))) @ rng.standard_normal((dims, dims))


def test_mean_and_covariance_of_batches_are_numpys_of_the_whole():
    x = 1e4 + features(500, 24, 0)
    got = gathered(x)
    assert np.allclose(got.mu, x.mean(0), rtol=1e-13)
    assert np.allclose(got.sigma, np.cov(x, rowvar=False), rtol=0, atol=1e-9)
    assert got.count == 500


@pytest.mark.parametrize("dims", [2, 24, 64])
def test_the_distance_is_that_of_the_matrix_root_to_1e_6(dims):
    a = gathered(features(600, dims, 0))
    b = gathered(features(700, dims, 1) * 0.8)
    want = by_root(a, b)
    assert want > 1
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9, abs=1e-6)
    assert frechet_distance(b, a) == pytest.approx(want, rel=1e-9, abs=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_the_distance_of_singular_covariances_is_exact():
    """Fewer samples than features. By the roots of a rotated diagonal, known in closed form."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    p, q = rng.uniform(0, 4, (2, 60))
    p[20:], q[10:30] = 0, 0
    a, b = (Statistics(np.zeros(60), turn @ np.diag(x) @ turn.T) for x in (p, q))
    want = ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-12)


def test_too_few_pictures_are_said():
    few, many = (gathered(features(n, 24, 0)) for n in (24, 25))
    assert re.search(r"24 pictures for 24 features.*covariance is singular", frechet.too_few(few))
    assert frechet.too_few(many) == ""
    with pytest.raises(UsageError, match="y: 1 features; a covariance needs two"):
        gathered(features(1, 4, 0), name="y")


def test_features_that_cannot_be_used_are_refused():
    x = features(9, 4, 0)
    x[7, 2] = np.nan
    with pytest.raises(UsageError, match=r"b: the features of number 7 \(1 of these 4\) hold NaN"):
        gathered(x, 5, "b")
    moments = Moments("b")
    moments.add(np.zeros((2, 3)))
    with pytest.raises(UsageError, match=r"b: features of shape \[2, 4\], needs \[n, 3\]"):
        moments.add(np.zeros((2, 4)))


def test_statistics_that_do_not_fit_are_refused():
    a, b = gathered(features(50, 4, 0), name="a"), gathered(features(50, 5, 0), name="b")
    with pytest.raises(
        UsageError, match="a has 4 features and b 5: they are of different networks"
    ):
        frechet_distance(a, b)
    turned = Statistics(a.mu, a.sigma + np.triu(a.sigma), name="turned")
    lost = Statistics(a.mu * np.inf, a.sigma, name="lost")
    with pytest.raises(UsageError, match=r"turned: sigma is not symmetric.*\nlost: mu holds NaN"):
        frechet_distance(turned, lost)
    with pytest.raises(UsageError, match=r"eigenvalue -.*none of a covariance is below 0"):
        frechet_distance(a, Statistics(a.mu, np.diag([1.0, 1, 1, -1])))


def test_statistics_are_written_as_pytorch_fid_reads_them_and_read_as_it_writes_them(tmp_path):
    x = gathered(features(50, 4, 0))
    frechet.save_statistics(tmp_path / "a.npz", x)
    with np.load(tmp_path / "a.npz") as theirs:  # pytorch_fid/fid_score.py, 0.3.0
        assert np.array_equal(theirs["mu"][:], x.mu) and np.array_equal(theirs["sigma"][:], x.sigma)
    np.savez_compressed(tmp_path / "b.npz", mu=x.mu, sigma=x.sigma)
    read = [frechet.read_statistics(tmp_path / name) for name in ("a.npz", "b.npz")]
    assert [s.count for s in read] == [50, 0]
    assert frechet_distance(*read) == pytest.approx(0, abs=1e-9)


def test_files_that_are_no_statistics_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, mu=np.zeros(3))
    with pytest.raises(UsageError, match=r"a.npz: lacks sigma \(it holds mu\)"):
        frechet.read_statistics(path)
    np.savez(path, mu=np.zeros(3), sigma=np.zeros((2, 2)))
    with pytest.raises(UsageError, match=r"mu \[3\] and sigma \[2, 2\], needs \[D\] and \[D, D\]"):
        frechet.read_statistics(path)
    np.savez(path, mu=np.array([{}]), sigma=np.zeros((1, 1)))
    with pytest.raises(UsageError, match=r"a.npz: no statistics.*allow_pickle=False"):
        frechet.read_statistics(path)
    path.write_bytes(b"mu")
    with pytest.raises(UsageError, match=r"a.npz: no statistics"):
        frechet.read_statistics(path)
    with pytest.raises(UsageError, match=r"none.npz: no statistics.*No such file"):
        frechet.read_statistics(tmp_path / "none.npz")
