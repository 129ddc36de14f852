"""WGAN-GP and the encoder into its latent space."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from lineproof.detectors.base import FitContext  # noqa: E402
from lineproof.detectors.training.schedules import Schedule  # noqa: E402
from lineproof.detectors.training.task import BatchSource  # noqa: E402
from lineproof.detectors.training.trainer import Trainer  # noqa: E402
from lineproof.detectors.volume.networks import Generator, Shape, critic, encoder  # noqa: E402
from lineproof.detectors.volume.wgan import EncoderLoss, WganRule, WganTask, gradient_penalty  # noqa: E402

CPU = torch.device("cpu")
SHAPE = Shape(dims=3, channels=1, side=8, width=4, residual=False)


class Cubes(BatchSource):
    """Grids in which one half is full."""

    def __init__(self, count=20):
        self.grids = -torch.ones(count, 1, 8, 8, 8)
        self.grids[:, :, :4] = 1.0

    def __len__(self):
        return len(self.grids)

    def __getitem__(self, draw):
        grids = self.grids[draw.indices]
        return grids, grids


def test_penalty_is_that_of_a_linear_critic():
    """The slope of w·x is w everywhere: (|w| − 1)², here (5 − 1)²."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        flat[1].weight.copy_(torch.tensor([[3.0, 4.0]]))
    penalty = gradient_penalty(flat, torch.randn(6, 2, 1), torch.randn(6, 2, 1))
    assert penalty.item() == pytest.approx(16.0, rel=1e-6)


def test_penalty_of_a_flat_critic_has_a_finite_slope():
    flat = nn.Linear(2, 1)
    nn.init.zeros_(flat.weight)
    gradient_penalty(flat, torch.randn(3, 2), torch.randn(3, 2)).backward()
    assert flat.weight.grad.isfinite().all()


def make_task(seed=0):
    torch.manual_seed(seed)
    source = Cubes()
    rule = WganRule(latent=6, critic_steps=5, learning_rate=2e-3)
    return WganTask(
        critic(SHAPE),
        Generator(SHAPE, 6),
        source=source,
        held_out=[(source.grids[:4], source.grids[:4])],
        rule=rule,
        device=CPU,
    )


def test_every_step_of_the_critic_sees_images_of_its_own():
    task = make_task()
    seen = []
    task._critic.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    batch = torch.arange(10.0).view(10, 1, 1, 1, 1).expand(10, 1, 8, 8, 8)
    names = [name for name, _ in task.step((batch, batch))]
    assert names == ["critic"] * 5 + ["generator"]
    # Made, real and between per step of the critic, and made for the generator.
    real = [item[:, 0, 0, 0, 0].tolist() for item in seen[1::3]]
    assert real == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    assert [len(item) for item in seen] == [2] * 16


@pytest.mark.slow
def test_a_trained_gan_makes_what_it_saw_and_its_encoder_restores_it():
    task = make_task()
    context = FitContext(seed=0)
    Trainer(task, schedule=Schedule(epochs=300, batch_size=20, patience=0, keeps="last"), context=context).run()
    generator = task._generator.eval()
    with torch.no_grad():
        made = generator(torch.randn(16, 6, generator=torch.Generator().manual_seed(1)))
    wanted = task.source.grids[0, 0]
    assert float((made[:, 0].mean(0) - wanted).abs().mean()) < 0.25

    before = copy.deepcopy(generator.state_dict())
    loss = EncoderLoss(encoder(SHAPE, 6), generator, task._critic[0], feature_weight=1.0)
    assert [name for name, _ in loss.named_parameters()] == [f"encoder.{n}" for n, _ in loss.encoder.named_parameters()]
    optimiser = torch.optim.Adam(loss.parameters(), 1e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        value = loss(task.source.grids[:8])
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]
    for name, item in generator.state_dict().items():
        assert torch.equal(item, before[name]), "the generator is frozen"
