"""A run's model card: what the model is, how it was measured, what it must not be used for."""

import ast
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import vmunet
from vmunet.data.licences import licence_of

SCORES = {
    "miou": "mIoU, pooled",
    "dsc": "DSC, pooled",
    "acc": "accuracy, pooled",
    "spe": "specificity, pooled",
    "sen": "sensitivity, pooled",
    "mean_iou": "IoU, mean over images",
    "mean_dice": "Dice, mean over images",
    "thresholded_jaccard": "thresholded Jaccard (0 below 0.65)",
}
SIZES = {"training_size": "at the training size", "native_size": "at the masks' own size"}
PROTOCOLS = {
    ("paper", False): "`paper` repeats VM-UNet's published code. The epoch was chosen by the loss "
    "on the test images, so the scores below are optimistic.",
    ("sound", False): "`sound`: the epoch was chosen on a held-out tenth of the training images; "
    "the test images chose nothing.",
    ("paper", True): "`paper` repeats VM-UNet's published code. The epoch was chosen by the lowest "
    "training loss.",
    ("sound", True): "`sound`: the epoch was chosen on a held-out sixth of the training cases; the "
    "test cases chose nothing.",
}
LIMIT = "For research. Not a medical device: nobody has tested it for diagnosis or treatment."
# VM-UNet, section IV-F and Table VI.
LIMIT_OF_OURS = (
    "The paper's authors name as limits that state-space models are biased towards continuous "
    "data and may generalise badly to inputs longer than those in training, that about 30 M "
    "parameters are many for a clinic, and that only small models were evaluated (section IV-F). "
    "Trained on larger images their model scores lower (Table VI)."
)
SLICES = "Slices are segmented one by one: nothing makes an organ continuous from slice to slice."
SKIN_OF_OURS = (
    "On skin lesions the paper's authors show failures where the lesion is hardly darker than the "
    "skin or hair lies over it (section IV-F, Figure 5)."
)
SKIN = (
    "ISIC images come from a few clinics and dermatoscopes, mostly of light skin: elsewhere "
    "nothing was measured."
)
DATASET_LIMITS = {  # of the real data
    "isic17": SKIN,
    "isic18": SKIN,
    "synapse": "Abdominal CT of one study, in the portal venous phase: on other scanners, phases "
    "or diseases nothing was measured.",
}
# Licences of weights, as Hugging Face's hub names them: those of the data that they were made from.
# Everything else is `other`, with the name of the terms.
HUB_LICENCES = {"isic17": "mit", "isic18": "cc-by-nc-4.0"}
HUB_TERMS = {"synapse": "synapse-terms-of-use"}
# The scores of a card's `model-index`: their key, and the hub's name of the metric.
HUB_SCORES = (("miou", "iou"), ("dsc", "dice"), ("acc", "accuracy"))
TAGS = ("medical-imaging", "pytorch")
TAGS_OF_OURS = ("vm-unet", "mamba", "state-space-model")
SAMPLE_LIMIT = (
    "**Trained and tested on a sample of the real images: its scores do not compare with the "
    "published ones.**"
)
PHANTOM_LIMIT = "**Trained and tested on phantoms: it says nothing about real images.**"


OURS = "vmunet"  # the paper's model
USAGE = "    vmunet predict {path} {example} --out masks"


def model_card(
    metrics: Mapping[str, Any],
    record: Mapping[str, Any],
    weights_source: str,
    usage: str = USAGE,
) -> str:
    """The card of a run, in Markdown with the YAML head that Hugging Face's hub reads.

    Args:
        metrics: the content of its metrics.json, or what `unscored` puts in its place.
        record: the content of its run.json: the settings of its training.
        weights_source: the profile's source of initial weights; `phantom` is a short pre-training
            on phantoms, whatever VMamba the cell names.
        usage: the last lines, how to segment with the weights; {path} and {example} are filled in.
    """
    head = io.StringIO()
    YAML(typ="safe", pure=True).dump(_head(metrics, _model(record)), head)
    lines = _lines(metrics, record, weights_source, usage)
    return f"---\n{head.getvalue()}---\n" + "\n".join(lines) + "\n"


def unscored(record: Mapping[str, Any], source: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `model_card` needs of a run without metrics.json.

    Args:
        record: the content of its run.json.
        source: the source of its data.
        facts: the metadata of its checkpoint.
    """
    data = {"source": source, "n_train": record.get("train_images")}
    if "classes" in facts:
        data["classes"] = facts["classes"]
    checkpoint = {**record, "path": "model.safetensors"}
    volumes = facts.get("normalisation") != "minmax"
    return {"run": record["run"], "data": data, "checkpoint": checkpoint, "volumes": volumes}


def _name(run: Mapping[str, Any]) -> str:
    return "-".join(str(run[part]) for part in ("view", "cell", "protocol", "seed"))


def _is_of_volumes(metrics: Mapping[str, Any]) -> bool:
    return metrics.get("volumes", "cases" in metrics.get("sound", {}))


def _model(record: Mapping[str, Any]) -> str:
    """The model's name in `vmunet.models.MODELS`."""
    return record.get("cell", {}).get("model", OURS)


def _head(metrics: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The card's metadata, by the hub's keys."""
    run, source = metrics["run"], metrics["data"]["source"]
    dataset, volumes = run["dataset"], _is_of_volumes(metrics)
    made = source == "phantom"
    licence = "mit" if made else HUB_LICENCES.get(dataset, "other") if source != "own" else "other"
    head: dict[str, Any] = {"license": licence}
    if licence == "other":
        head["license_name"] = HUB_TERMS.get(dataset, "terms-of-the-data")
        head["license_link"] = "README.md"
    head |= {
        "library_name": "vmunet",
        "pipeline_tag": "image-segmentation",
        "tags": [
            *(TAGS_OF_OURS if model == OURS else [model]),
            *TAGS,
            *(["phantoms"] if made else []),
        ],
        **({} if made else {"datasets": [dataset]}),
        "metrics": ["dice", "hd95"] if volumes else ["dice", "iou"],
    }
    if "paper" in metrics:
        head["model-index"] = [{"name": _name(run), "results": [_result(metrics, made)]}]
    return head


def _result(metrics: Mapping[str, Any], made: bool) -> dict[str, Any]:
    """The scores as an entry of the hub's `model-index`; percent, so that it shows them as here."""
    dataset, paper = metrics["run"]["dataset"], metrics["paper"]
    names = {"dsc": "DSC, mean over cases and organs"} if _is_of_volumes(metrics) else SCORES
    scores = [(key, kind, paper.get(key)) for key, kind in HUB_SCORES]
    return {
        "task": {"type": "image-segmentation"},
        "dataset": {
            "type": "phantoms" if made else dataset,
            "name": f"phantoms in place of {dataset}" if made else dataset,
            "split": "test",
        },
        "metrics": [
            {
                "type": kind,
                "name": f"{names[key]}, the paper's way (%)",
                "value": round(100 * value, 2),
            }
            for key, kind, value in scores
            if value is not None
        ],
    }


def _lines(
    metrics: Mapping[str, Any], record: Mapping[str, Any], weights_source: str, usage: str
) -> Iterator[str]:
    cell, train = record.get("cell", {}), record.get("train", {})
    initial = _initial(cell.get("init"), weights_source)
    run, data, checkpoint = (metrics[part] for part in ("run", "data", "checkpoint"))
    volumes, ours = _is_of_volumes(metrics), _model(record) == OURS
    title, about, flat = _about(cell, train)
    yield f"# {title}: {_name(run)}"
    yield ""
    for source, limit in (("phantom", PHANTOM_LIMIT), ("sample", SAMPLE_LIMIT)):
        if data["source"] == source:
            yield limit
            yield ""
    yield f"{about}, for {run['size']}x{run['size']} px and the classes: {_classes(data)}."
    yield ""
    yield "## Data"
    yield ""
    yield (
        f"{run['dataset']} (source: {data['source']}): {_count(data, 'n_train')} to train, "
        f"{_count(data, 'n_test')} to test. {licence_of(run['dataset'], data['source'])}"
    )
    yield ""
    yield "## Training"
    yield ""
    yield PROTOCOLS[(run["protocol"], volumes)]
    rate = cell.get("drop_path_rate")
    drop_path = f", drop path {_text(rate)}" if ours or rate is not None else ""
    yield (
        f"Profile {run['profile']}, seed {run['seed']}: {_text(train.get('epochs'))} epochs of "
        f"batches of {_text(train.get('batch_size'))}, learning rate "
        f"{_text(train.get('learning_rate'))}, initial weights: {initial}{drop_path}{_own(cell)}. "
        f"The weights are those of epoch {checkpoint['epoch']}."
    )
    yield ""
    yield "## Scores"
    yield ""
    if "paper" not in metrics:
        yield "Not scored: there was no metrics.json."
    elif volumes:
        yield from _organs(metrics)
    else:
        yield from _images(metrics["paper"], metrics["sound"])
    yield ""
    yield "## Limits"
    yield ""
    real = data["source"] not in ("phantom", "own")
    dataset_limit = DATASET_LIMITS.get(run["dataset"]) if real else None
    limits = {
        LIMIT: True,
        LIMIT_OF_OURS: ours,
        SLICES: volumes and flat,
        SKIN_OF_OURS: ours and dataset_limit == SKIN,
        dataset_limit: dataset_limit is not None,
    }
    yield from (f"- {limit}" for limit, holds in limits.items() if holds)
    yield ""
    yield "## Where it comes from"
    yield ""
    for key in ("sha256", "git", "code_hash", "data_hash", "mlflow_run_id", "device", "threads"):
        yield f"- {key.replace('_', ' ')}: {_text(checkpoint.get(key))}"
    versions = checkpoint.get("versions") or {}
    yield f"- packages: {', '.join(f'{k} {v}' for k, v in versions.items()) or '--'}"
    yield ""
    yield "The code is under the MIT licence. To segment with it:"
    yield ""
    example = "ct.nii.gz" if volumes else "photo.jpg"
    yield usage.format(path=checkpoint["path"], example=example)


def _about(cell: Mapping[str, Any], train: Mapping[str, Any]) -> tuple[str, str, bool]:
    """The model's title, what it is and how wide (without a full stop), whether it is of 2D."""
    name = cell.get("model", OURS)
    if name == OURS:
        depths, decoder = _text(cell.get("depths")), _text(cell.get("depths_decoder"))
        about = (
            f"VM-UNet (Ruan et al. 2024, arXiv:2402.02491), encoder depths {depths}, decoder "
            f"{decoder}, widths {_text(train.get('dims'))}"
        )
        return "VM-UNet", about, True
    from vmunet.models import file_of, model_class  # the model's class needs torch

    source = (Path(vmunet.__file__).parents[1] / file_of(name)).read_text(encoding="utf-8")
    paragraphs = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    words = [" ".join(paragraph.split()) for paragraph in paragraphs[:2]]
    width = train.get("width", 1.0)
    words.append("Here as wide as published" if width == 1 else f"Here {width:g} times as wide")
    return model_class(name).title, " ".join(words), model_class(name).dimensions == 2


def _images(paper: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Percent, with 95% bootstrap intervals over the test images, which say nothing of the "
        "spread between trainings."
    )
    yield ""
    yield "| | the paper's way | " + " | ".join(SIZES.values()) + " |"
    yield "|---|---:|" + "---:|" * len(SIZES)
    for key, words in SCORES.items():
        if any(key in sound[size] for size in SIZES):
            intervals = [_interval(sound[size], key) for size in SIZES]
            yield f"| {words} | {_percent(paper.get(key))} | {' | '.join(intervals)} |"
    for name in sound["training_size"].get("classes", {}):
        intervals = [_interval(sound[size]["classes"][name], "mean_dice") for size in SIZES]
        words = f"{name}: Dice, mean over images"
        yield f"| {words} | {_percent(paper.get(name))} | {' | '.join(intervals)} |"


def _organs(metrics: Mapping[str, Any]) -> Iterator[str]:
    paper, sound = metrics["paper"], metrics["sound"]
    yield (
        f"Means over {sound['cases']} test cases at their own size, Dice in percent, with 95% "
        "bootstrap intervals over the cases. The paper's way counts an organ that is missed, or "
        "absent in truth and prediction, as 0 and one that is absent but predicted as 100; the "
        "other figures leave out what is absent in both, and count as 0 what is in one alone."
    )
    yield ""
    yield "| organ | Dice, the paper's way | Dice | HD95 (mm) | cases counted in Dice | in HD95 |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, scores in sound["organs"].items():
        yield (
            f"| {name} | {_percent(paper[name])} | {_interval(scores, 'dice')} | "
            f"{_distance(scores['hd95_mm'])} | {scores['dice_n']} | {scores['hd95_n']} |"
        )
    mean, hd95 = _interval(sound, "dice"), _distance(sound["hd95_mm"])
    yield f"| mean of the organs | {_percent(paper['dsc'])} | {mean} | {hd95} | | |"


def _own(cell: Mapping[str, Any]) -> str:
    """The cell's loss weights and augmentation, if it has its own."""
    words = {"loss_weights": "weights of cross-entropy and Dice", "augment": "augmentation"}
    settings_text = ""
    for field, name in words.items():
        value = cell.get(field)
        if isinstance(value, Mapping):
            value = [f"{key.replace('_', ' ')} {_text(one)}" for key, one in value.items()]
        settings_text += f", {name} {_text(value)}" if value is not None else ""
    return settings_text


def _initial(init: Any, source: str) -> str:
    """The origin of the weights before training."""
    if init == "imagenet":
        return "ImageNet's"
    if source == "phantom" and str(init).startswith("vmamba"):
        return f"a short pre-training on phantoms in place of {init}"
    return _text(init)


def _interval(scores: Mapping[str, Any], key: str) -> str:
    low, high = (scores.get("intervals") or {}).get(key) or (None, None)
    text = _percent(scores.get(key))
    return text if low is None or high is None else f"{text} [{_percent(low)}, {_percent(high)}]"


def _percent(value: float | None) -> str:
    return "--" if value is None else f"{100 * value:.2f}"


def _distance(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "--" if value is None else str(value)


def _classes(data: Mapping[str, Any]) -> str:
    return ", ".join(data.get("classes") or ["lesion"])


def _count(data: Mapping[str, Any], name: str) -> str:
    """The number of images, or of cases with their slices."""
    if data.get(name) is None:
        return "--"
    slices = data.get(name.replace("n_", "") + "_slices")
    return f"{data[name]} images" if slices is None else f"{data[name]} cases ({slices} slices)"
