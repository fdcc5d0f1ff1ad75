"""Where the theorems stop holding: one assumption dropped at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from indelible.errors import UserError
from indelible.theory.assumptions import post_window, run_arms
from indelible.theory.tasks import ARMS, TheorySpec, mixture
from indelible.theory.theorems import Check, check_learned_features, check_no_input_no_change, check_post_training
from indelible.theory.training import rank_steps, run_chain, run_full_chain

# C.4 (beta < c/2) and the order of 5.1 together: possible once D_post's inputs vary more on the specialised directions
# than elsewhere, because the order is one of cross-covariances (alpha nu beta). Here L_im hides what L_ret shows.
REPAIRED = TheorySpec(
    sigma_pre=(0.1,),
    sigma_post=(2.2,),
    sigma_ft=(0.1,),
    beta=(1.0,),
    post_variance=4.0,
    T=18.0,
    lr=0.004,
    posttrain_steps=200,
    finetune_steps=8000,
)


@dataclass(frozen=True)
class CounterExample:
    """Theorem 5.3 with one assumption dropped; the rest of the spec is unchanged."""

    dropped: str
    change: str  # what was set instead
    delta_unmixed: float
    delta_mixed: float
    L_ret_unmixed: float
    L_ret_mixed: float

    @property
    def outcome(self) -> str:
        """Delta_unmixed > Delta_mixed `holds`, is `reversed`, or `vanishes`: within a hundredth of the larger Delta."""
        gap, scale = self.delta_unmixed - self.delta_mixed, max(abs(self.delta_unmixed), abs(self.delta_mixed))
        return "vanishes" if abs(gap) <= 0.01 * scale else "holds" if gap > 0 else "reversed"


@dataclass(frozen=True)
class Broken:
    """Theorem 5.1, 5.2 or C.16 with one assumption dropped."""

    theorem: str
    dropped: str
    change: str  # what was set instead
    number: str  # the measurement that decides, one of the check's
    value: float
    as_it_stands: float  # the same with nothing dropped
    verdict: str


class Options(TypedDict, total=False):
    """How `run_full_chain` departs from the exact solver; empty for the recursion."""

    num_samples: int


def counterexamples(spec: TheorySpec) -> list[CounterExample]:
    """Each needed assumption of 5.3 dropped in turn; an example that this spec cannot make is left out."""
    makers: list[tuple[str, Callable[[TheorySpec], tuple[str, TheorySpec, Options]]]] = [
        ("order of cross-covariances (C.6)", _without_order),
        ("stop at rank n - k: same pretraining time for both", _same_time),
        ("stop at rank n - k: pretraining to convergence", _converged),
        ("long enough a post-training: none at all", _no_post),
        ("short post-training", _long_post),
        ("post-training raises the inconsistent values", _lowered),
        ("fine-tuning near its end", _short_finetune),
        ("no input of D_ft on specialised directions", _overlapping),
        ("exact covariances", _sampled),
    ]
    out = []
    for dropped, make in makers:
        try:
            change, changed, options = make(spec)
            arms = {
                arm: run_full_chain(changed, arm, **options) if options else run_chain(changed, arm) for arm in ARMS
            }
        except UserError:
            continue
        ret = {arm: float(arms[arm].losses.L_ret) for arm in ARMS}
        delta = {arm: float(arms[arm].losses.delta) for arm in ARMS}
        out.append(CounterExample(dropped, change, delta["unmixed"], delta["mixed"], ret["unmixed"], ret["mixed"]))
    return out


def _without_order(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """Specialised features learned after the inconsistent ones, in the mixed run too."""
    blend = mixture(spec, spec.alpha).target[spec.block("inconsistent")].min()
    beta = 0.25 * float(blend) / (max(spec.alpha, 1e-9) * spec.post_variance)
    return f"beta = {beta:.3g}", spec.replace(beta=(beta,)), {}


def _same_time(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """Both arms stop when the unmixed one has rank n - k."""
    steps = rank_steps(spec, "unmixed")
    return f"both arms pretrain {steps} steps", spec.replace(pretrain_steps=steps), {}


def _converged(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """Both arms pretrain until every feature with input has its fixed point."""
    steps = 3 * rank_steps(spec, "unmixed")
    return f"both arms pretrain {steps} steps", spec.replace(pretrain_steps=steps), {}


def _no_post(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """No post-training: what the unmixed run knows from pretraining is still more than what the mixed one knows."""
    return "0 steps of post-training", spec.replace(posttrain_steps=0), {}


def _lowered(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """D_post asks for less than D_pre: knowing nothing of a feature is then closer to it than knowing it from D_pre."""
    pre, post = 0.6 * spec.values("sigma_post"), 0.25 * spec.values("sigma_pre")
    changed = spec.replace(sigma_pre=tuple(pre.tolist()), sigma_post=tuple(post.tolist()))
    return f"sigma_pre = {pre[0]:.3g}, sigma_post = {post[0]:.3g}", changed, {}


def _long_post(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """Post-training long enough for features of size exp(-2T) to grow."""
    window = post_window(spec, run_arms(spec))
    steps = int(3 * max(window.closes_unmixed, window.closes_mixed, window.opens) / spec.lr)
    return f"{steps} steps of post-training", spec.replace(posttrain_steps=steps), {}


def _short_finetune(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """A short fine-tune beyond what a strongly regularised post-training reached: it helps the unmixed run.

    Its inconsistent features are already there and follow at once; the mixed run's, smaller still with the larger T,
    have to grow first.
    """
    target = 0.2 * spec.values("sigma_pre") + 0.8 * spec.values("sigma_post")
    changed = spec.finer(4).replace(regularisation=1.0, sigma_ft=tuple(target.tolist()), T=1.5 * spec.T)
    steps = round(0.4 / float(target.min()) / changed.lr)
    text = f"reg = 1, T = {changed.T:.3g}, sigma_ft = {target[0]:.3g}, {steps} steps of {changed.lr:.2g}"
    return text, changed.replace(finetune_steps=steps), {}


def _overlapping(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """D_ft has unit input variance on the specialised directions and asks for 0 there."""
    return "overlap = 1", spec.replace(overlap=1.0, overlap_target=0.0), {}


def _sampled(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """Sample covariances couple the features: no feature is ever as small as exp(-2T) any more."""
    return "1000 samples of each data set", spec, {"num_samples": 1000}


def broken_checks(spec: TheorySpec) -> list[Broken]:
    """Each assumption of 5.1, 5.2 and C.16 dropped in turn; an example that this spec cannot make is left out."""
    order, same_time, long_post = _without_order, _same_time, _long_post
    share = "mixed: largest share of the inconsistent"
    drift = "largest change of theta on the specialised directions"
    learned, post = check_learned_features, check_post_training
    by_recursion: list[tuple[str, str, Callable[..., Check], str, Callable[..., tuple[str, TheorySpec, Options]]]] = [
        ("5.1 / C.10", "order of cross-covariances", learned, "mixed: least share learned of the others", order),
        ("5.1 / C.10", "small start", learned, share, _large_start),
        ("5.1 / C.10", "stop at rank n - k", learned, share, same_time),
        ("5.2 / C.15", "long enough", post, "unmixed: least share of the inconsistent", _brief_post),
        ("5.2 / C.15", "short enough", post, "unmixed: largest share of the specialised", long_post),
    ]
    out = []
    for theorem, dropped, check, name, make in by_recursion:
        try:
            change, changed, _ = make(spec)
            found, usual = check(changed, run_arms(changed)), check(spec, run_arms(spec))
        except UserError:
            continue
        out.append(Broken(theorem, dropped, change, name, found.numbers[name], usual.numbers[name], found.verdict))
    usual = check_no_input_no_change(spec)
    for dropped, change, found in (
        ("no input", "overlap = 1", check_no_input_no_change(spec.replace(overlap=1.0))),
        ("aligned layers", "identity start, U not V", check_no_input_no_change(spec, start="identity")),
        ("aligned layers", "1000 samples of each data set", check_no_input_no_change(spec, num_samples=1000)),
    ):
        out.append(Broken("C.16", dropped, change, drift, found.numbers[drift], usual.numbers[drift], found.verdict))
    return out


def _large_start(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """A start so large that every feature is learned before the order can show."""
    return "T = 1", spec.replace(T=1.0), {}


def _brief_post(spec: TheorySpec) -> tuple[str, TheorySpec, Options]:
    """A tenth of the time that the inconsistent features need."""
    steps = int(0.1 * post_window(spec, run_arms(spec)).opens / spec.lr)
    return f"{steps} steps of post-training", spec.replace(posttrain_steps=steps), {}
