"""Any sequence of adds, aborts, steps and failures leaves the engine sound."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from oar_core.config import BackboneConfig
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import EngineEvent, PatchesDecoded, SequenceAborted, SequenceFinished, SequenceStarted
from oar_core.order.plan import GROUP_SIZES, ORDERS, PROMPTED, PUBLISHED, PlanSpec
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import UNCONDITIONAL, HashBackbone

CONFIG = BackboneConfig(grid=(2, 3), vocab_size=5, condition_vocab=4, max_condition=2)
LENGTH = CONFIG.num_tokens

plans = st.builds(
    PlanSpec,
    order=st.sampled_from([name for name in ORDERS if name != PROMPTED]) | st.permutations(range(LENGTH)).map(tuple),
    steps=st.none() | st.integers(1, LENGTH),
    group_sizes=st.sampled_from([name for name in GROUP_SIZES if name != PUBLISHED]),  # this family has none
)
known_tokens = st.lists(st.integers(0, LENGTH - 1), unique=True, max_size=LENGTH).map(
    lambda positions: KnownTokens(tuple(positions), (1,) * len(positions))
)


class EngineMachine(RuleBasedStateMachine):
    sequences = Bundle("sequences")

    @initialize(num_slots=st.integers(2, 6))
    def start(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.backbone = HashBackbone(CONFIG)
        self.engine = Engine(self.backbone, UNCONDITIONAL, EngineConfig(num_slots))
        self.requests: dict[str, SequenceRequest] = {}
        self.started: list[str] = []
        self.decoded: dict[str, list[int]] = {}
        self.ended: set[str] = set()
        self.aborted: set[str] = set()
        self.gone: set[str] = set()  # out of the engine, though its terminal event may be yet to come

    @rule(
        target=sequences,
        plan=plans,
        known=known_tokens,
        guidance=st.sampled_from([1.0, 1.0, 3.0]),
        seed=st.integers(0, 3),
    )
    def add(self, plan: PlanSpec, known: KnownTokens, guidance: float, seed: int) -> str:
        name = f"s{len(self.requests)}"
        request = SequenceRequest(name, (1, 2), seed, 0, plan, SamplingParams(guidance=guidance), known)
        self.engine.add(request)
        self.requests[name] = request
        self.decoded[name] = []
        return name

    @rule(name=consumes(sequences))
    def abort(self, name: str) -> None:
        assert self.engine.abort(name) == (name not in self.gone)
        if name not in self.gone:
            self.aborted.add(name)
            self.gone.add(name)

    @rule(count=st.integers(1, 4))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._observe(self.engine.step())

    @rule()
    def fail(self) -> None:
        """The next pass over the model, if there is one, fails."""
        self.backbone.fail_next = True
        try:
            self._observe(self.engine.step())
        except FloatingPointError:
            failed = set(self.requests) - set(self.engine.forecast()) - self.gone
            assert failed, "a pass over the model has rows"
            self.gone |= failed
            # A picture that was known from the start was finished before the model was asked.
            self.aborted |= {name for name in failed if len(self.requests[name].known.positions) < LENGTH}
        self.backbone.fail_next = False

    @invariant()
    def slots_are_held_by_running_sequences_only(self) -> None:
        if not hasattr(self, "engine"):
            return
        live = [name for name in self.requests if name not in self.gone]
        assert self.engine.num_running + self.engine.num_waiting == len(live)
        running = [name for name in live if name in self.started]
        held = sum(2 if self.requests[name].sampling.is_guided else 1 for name in running)
        assert self.engine.num_free_slots == self.num_slots - held
        assert self.engine.num_running == len(running)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        bound = max(self.engine.forecast().values(), default=0)
        for _ in range(bound):
            self._observe(self.engine.step())
        self._observe(self.engine.step())
        assert not self.engine.has_work
        assert self.engine.num_free_slots == self.num_slots
        assert self.ended == set(self.requests)

    def _observe(self, events: list[EngineEvent]) -> None:
        for event in events:
            name = event.sequence_id
            assert name not in self.ended, f"{event} after the end"
            match event:
                case SequenceStarted():
                    self._check_fifo(name)
                    self.started.append(name)
                case PatchesDecoded():
                    self._check_patches(event)
                case SequenceFinished():
                    assert name not in self.aborted
                    self._check_picture(event)
                    self.ended.add(name)
                    self.gone.add(name)
                case SequenceAborted():
                    assert name in self.aborted
                    self.ended.add(name)

    def _check_fifo(self, name: str) -> None:
        number = int(name[1:])
        assert all(int(other[1:]) < number for other in self.started)

    def _check_patches(self, event: PatchesDecoded) -> None:
        name = event.sequence_id
        assert name not in self.aborted, "an aborted sequence decodes nothing more"
        for patch in event.patches:
            assert patch.rank == len(self.decoded[name])
            assert patch.position not in self.decoded[name]
            assert patch.position not in self.requests[name].known.positions
            self.decoded[name].append(patch.position)

    def _check_picture(self, event: SequenceFinished) -> None:
        known = self.requests[event.sequence_id].known
        assert sorted([*self.decoded[event.sequence_id], *known.positions]) == list(range(LENGTH))
        assert len(event.token_ids) == LENGTH
        assert all(event.token_ids[position] == 1 for position in known.positions)


EngineMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestEngine = EngineMachine.TestCase
