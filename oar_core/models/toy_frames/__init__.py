"""A toy of the kind that Self Forcing (arXiv 2506.08009) trains: grey frames, each denoised in a few steps over a KV
cache of clean ones. It shows what the contract of frames asks; what it makes is not worth seeing."""

from oar_core.models.family import ModelFamily
from oar_core.models.toy_frames.backbone import ToyFrameBackbone
from oar_core.models.toy_frames.config import ToyFramesConfig

FAMILY = ModelFamily(frames=lambda config: ToyFrameBackbone(ToyFramesConfig.from_dict(config)))
