"""Several networks with losses of their own: one loop trains them all and resumes after a kill at any epoch."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.optim.lr_scheduler import ExponentialLR  # noqa: E402

from lineproof.bundle.runs.folder import epochs_kept_words  # noqa: E402
from lineproof.core.errors import LineproofError  # noqa: E402
from lineproof.detectors.base import FitContext  # noqa: E402
from lineproof.detectors.training.schedules import Schedule, WarmCosine  # noqa: E402
from lineproof.detectors.training.task import BatchSource, LossTask, Optimisation, TrainingTask  # noqa: E402
from lineproof.detectors.training.trainer import Trainer  # noqa: E402

NUM_CRITIC_STEPS = 3
EPOCHS = 4


class KilledError(Exception):
    pass


class Blob(BatchSource):
    """Points about (3, −2), jittered anew at every step."""

    points = torch.tensor([3.0, -2.0]) + 0.3 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.points)

    def __getitem__(self, draw):
        points = self.points[draw.indices]
        return points + 0.01 * torch.randn(points.shape, generator=draw.generator())


class ToyGan(TrainingTask):
    """WGAN-GP: several steps of the critic to one of the generator."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        generator = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 1))
        super().__init__(nn.ModuleDict({"generator": generator, "critic": critic}), Blob())
        self.generator, self.critic = generator, critic

    def optimisers(self):
        generator = torch.optim.Adam(self.generator.parameters(), 0.02, betas=(0.0, 0.9))
        critic = torch.optim.RMSprop(self.critic.parameters(), 0.02, momentum=0.5)
        steps = EPOCHS * -(-len(self.source) // 8)
        return {
            "generator": Optimisation(optimiser=generator, scheduler=WarmCosine(generator, num_steps=steps)),
            "critic": Optimisation(
                optimiser=critic, scheduler=ExponentialLR(critic, 0.9), scheduler_unit="epoch", largest_norm=1.0
            ),
        }

    def step(self, batch):
        for _ in range(NUM_CRITIC_STEPS):
            made = self.generator(torch.randn(len(batch), 2)).detach()
            share = torch.rand(len(batch), 1)
            between = (share * batch + (1 - share) * made).requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
            penalty = 10.0 * (slope.norm(dim=1) - 1.0).square().mean()
            yield "critic", self.critic(made).mean() - self.critic(batch).mean() + penalty
        yield "generator", -self.critic(self.generator(torch.randn(len(batch), 2))).mean()

    def validate(self):
        noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(9))
        return float((self.generator(noise).mean(0) - self.source.points.mean(0)).norm())


def schedule(**others):
    return Schedule(epochs=EPOCHS, batch_size=8, patience=0, ema_decay=0.5, **others)


def encoder_task(gan):
    """Learns to tell which noise made a point, once the generator is trained; begins with torch's own generator."""
    encoder = nn.Linear(2, 2)
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        made = gan.generator(noise)
    optimiser = torch.optim.SGD(encoder.parameters(), 0.01, momentum=0.9)
    return encoder, LossTask(
        encoder,
        Optimisation(optimiser=optimiser),
        source=Blob(),
        loss=lambda batch: (encoder(made[: len(batch)]) - noise[: len(batch)]).square().mean(),
        holdout_loss=lambda: float((encoder(made) - noise).square().mean()),
        name="encoder",
    )


def killing(stage, done):
    """A listener that ends the process, as it were, at a step of a stage."""

    def listen(heard, count, *_):
        if (heard, count) == (stage, done):
            raise KilledError

    return listen


def whole_fit(seed, context):
    gan = ToyGan(seed)
    first = Trainer(gan, schedule=schedule(), context=context).run()
    encoder, task = encoder_task(gan)
    second = Trainer(task, schedule=schedule(), context=context).run()
    tensors = {**gan.module.state_dict(), **encoder.state_dict()}
    values = [{key: value for key, value in item.items() if key != "seconds"} for item in (first, second)]
    return {name: item.numpy().copy() for name, item in tensors.items()}, values


def assert_equal(got, expected):
    assert got[1] == expected[1]
    assert got[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        np.testing.assert_array_equal(got[0][name], value, err_msg=name)


def test_each_loss_moves_its_own_network():
    gan, told = ToyGan(0), []
    before = {name: item.clone() for name, item in gan.module.state_dict().items()}
    losses = gan.step(gan.source.points[:8])
    optimisations = gan.optimisers()
    trainer = Trainer(
        gan, schedule=schedule(keeps="last"), context=FitContext(progress=lambda *item: told.append(item))
    )
    for name, parts in (("critic", "critic"), ("generator", "generator")):
        assert {id(item) for item in optimisations[name].parameters()} == {
            id(item) for item in gan.module[parts].parameters()
        }
    assert [name for name, _ in losses] == ["critic"] * NUM_CRITIC_STEPS + ["generator"]
    trainer.run()
    after = gan.module.state_dict()
    assert not [name for name, item in before.items() if name.endswith("weight") and torch.equal(item, after[name])]
    assert "critic loss" in told[-1][3]
    assert "generator loss" in told[-1][3]


def test_the_points_that_are_made_come_nearer():
    gan = ToyGan(0)
    with torch.no_grad():
        before = gan.validate()
    long = Schedule(epochs=30, batch_size=10, patience=0)
    assert Trainer(gan, schedule=long, context=FitContext()).run()["best_holdout_loss"] < 0.3 * before


@pytest.mark.parametrize("stage", ["training", "encoder"])
@pytest.mark.parametrize("done", [4, 6, 8, 10, 12])
def test_a_fit_of_two_trainings_goes_on_to_the_same_bits(tmp_path, stage, done):
    """Killed at the first, middle or last step of any epoch after the first, and before the last is judged."""
    expected = whole_fit(0, FitContext(seed=3))
    context = FitContext(seed=3, run=tmp_path, save_every_s=1e-9)
    with pytest.raises(KilledError):
        whole_fit(0, dataclasses.replace(context, progress=killing(stage, done)))
    epoch, step = divmod(done - 1, 3)
    whose = " of its encoder" if stage == "encoder" else ""
    assert epochs_kept_words(tmp_path) == f"step {step + 1} of epoch {epoch + 1} of {EPOCHS}{whose}"
    told = []
    resumed = whole_fit(8, dataclasses.replace(context, progress=lambda *item: told.append(item[:2])))
    assert (stage, done) not in told
    assert done == 3 * EPOCHS or told[0] == (stage, done + 1)
    assert_equal(resumed, expected)


def test_a_loss_is_called_by_its_name_where_it_is_not_finite():
    gan = ToyGan(0)
    with torch.no_grad():
        gan.critic[0].weight.fill_(torch.inf)
    with pytest.raises(LineproofError, match=r"The critic loss became nan in epoch 1, step 1\."):
        Trainer(gan, schedule=schedule(), context=FitContext()).run()
