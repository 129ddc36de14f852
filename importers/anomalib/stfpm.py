"""anomalib's STFPM: the same networks, distances and product; nothing differs but names."""

from .source import Converted, Source, take_backbone


def convert_stfpm(source: Source) -> Converted:
    """Convert an STFPM model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "resnet18")
    settings.require("layers", ["layer1", "layer2", "layer3"])
    student = tensors.take_under("student_model.feature_extractor")
    state = take_backbone(source, "teacher_model.feature_extractor")
    state |= {f"student.network.{name}": tensor for name, tensor in student.items()}
    return Converted(model="Stfpm", detector="stfpm", settings={"backbone": backbone}, state=state)
